"""Real subprocesses: started on free ports, waited for by a condition, killed and frozen, cleaned up for certain."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from backend.simulator.admin import Admin

ROOT = Path(__file__).parent.parent.parent
START_S = 60.0
POLL_S = 0.01


Started = TypeVar("Started", bound="Process")


class NotReady(AssertionError):
    """A process ended, or did not come up in time; the message holds its output."""


class Process:
    """One subprocess in a process group of its own; its output goes to ``log``."""

    _stdin = subprocess.DEVNULL

    def __init__(
        self, command: Iterable[str | Path], *, name: str, log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.command = [str(part) for part in command]
        self.name = name
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again when it has ended; ``ready`` waits until it is up."""
        assert not self.running, f"{self.name} is running already"
        self._close_stdin()
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                self.command,
                stdin=self._stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self._env,
                start_new_session=True,
            )

    @property
    def child(self) -> subprocess.Popen[bytes]:
        """The latest incarnation."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self.child.pid

    @property
    def running(self) -> bool:
        """Whether it lives (frozen or not)."""
        return self._child is not None and self._child.poll() is None

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def up(self) -> bool:
        """Whether it is ready; ``ready`` waits for this."""
        return self.running

    async def ready(self, condition: Callable[[], bool] | None = None, *, within_s: float = START_S) -> None:
        """Wait until ``condition`` (or ``up``) holds. Raises NotReady."""
        deadline = time.monotonic() + within_s
        while not self._check(condition or self.up, deadline):  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(POLL_S)

    def wait_ready(self, condition: Callable[[], bool] | None = None, *, within_s: float = START_S) -> None:
        """The same for code that is not async."""
        deadline = time.monotonic() + within_s
        while not self._check(condition or self.up, deadline):
            time.sleep(POLL_S)

    def kill(self) -> None:
        """SIGKILL, to it alone, and wait until it is gone."""
        self.child.kill()
        self.child.wait(10)

    def terminate(self) -> None:
        """SIGTERM."""
        self.child.terminate()

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open and nobody answers."""
        self.child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.child.send_signal(signal.SIGCONT)

    async def ended(self, *, within_s: float = 30.0) -> int:
        """Wait for its end; the exit status."""
        deadline = time.monotonic() + within_s
        while (status := self.child.poll()) is None:
            if time.monotonic() > deadline:
                raise NotReady(f"{self.name} did not end within {within_s} s:\n{self.output}")
            await asyncio.sleep(POLL_S)
        return status

    def clean_up(self) -> None:
        """SIGKILL to its whole group, whatever state it is in."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait(10)
        self._close_stdin()

    def _close_stdin(self) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()

    def _check(self, condition: Callable[[], bool], deadline: float) -> bool:
        if not self.running:
            raise NotReady(f"{self.name} ended with {self.child.returncode}:\n{self.output}")
        if condition():
            return True
        if time.monotonic() > deadline:
            raise NotReady(f"{self.name} was not ready in time:\n{self.output}")
        return False


class Simulator(Process):
    """A simulated box or provider. ``url``, ``port`` and ``admin`` are there once it is ready.

    It comes back on the same port when it is started again. It ends with the process that started it, even where that
    one is killed.
    """

    _stdin = subprocess.PIPE

    def __init__(
        self, module: str, *, name: str, log: Path, env: Mapping[str, str] | None = None, **knobs: Any
    ) -> None:
        super().__init__(
            [sys.executable, "-m", module, *flags({"port": 0, "name": name, "exit_with_stdin": True, **knobs})],
            name=name,
            log=log,
            env=env,
        )
        self._said: dict[str, Any] | None = None
        self._admin: Admin | None = None

    def start(self) -> None:
        """Start it, or start it again on the same port."""
        if self._said is not None:
            self.command += ["--port", str(self.port)]
        self._close_admin()
        super().start()

    def up(self) -> bool:
        """Whether it has said where it listens."""
        line, end, _ = self.output.partition("\n")
        if not end or not line.startswith("{"):
            return False
        self._said = json.loads(line)
        return True

    @property
    def said(self) -> dict[str, Any]:
        """Its ready line."""
        assert self._said is not None, f"{self.name} was not awaited: `await {self.name}.ready()`"
        return self._said

    @property
    def url(self) -> str:
        """Its base URL, without /v1."""
        return str(self.said["url"])

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def admin(self) -> Admin:
        """Faults, and what arrived."""
        if self._admin is None:
            self._admin = Admin(self.said["control"])
        return self._admin

    def clean_up(self) -> None:
        """End it and close the connection to it."""
        self._close_admin()
        super().clean_up()

    def _close_admin(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None


class Processes:
    """All processes of a test (or of a session); leaving it ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[Process] = []
        # For when the interpreter ends without leaving any context.
        atexit.register(self.clean_up)

    def box(self, *, name: str = "box", adapters: Iterable[str] = (), **knobs: Any) -> Simulator:
        """Start a simulated box; ``knobs`` are the options of ``failsoft simulate-box`` (``ttft_ms=5``)."""
        simulator = Simulator("backend.simulator", name=name, log=self._log(name), adapter=list(adapters), **knobs)
        return self._started(simulator)

    def provider(self, *, name: str = "provider", **knobs: Any) -> Simulator:
        """Start a stand-in provider; ``knobs`` are the options of ``backend.simulator.provider``."""
        return self._started(Simulator("backend.simulator.provider", name=name, log=self._log(name), **knobs))

    def command(self, command: Iterable[str | Path], *, name: str, env: Mapping[str, str] | None = None) -> Process:
        """Start any other command."""
        return self._started(Process(command, name=name, log=self._log(name), env=env))

    def _log(self, name: str) -> Path:
        return self._folder / f"{len(self._processes)}-{name}.log"

    def _started(self, process: Started) -> Started:
        self._processes.append(process)
        process.start()
        return process

    def clean_up(self) -> None:
        """End them all."""
        while self._processes:
            self._processes.pop().clean_up()
        atexit.unregister(self.clean_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clean_up()


def flags(knobs: Mapping[str, Any]) -> list[str]:
    """Command-line options: ``ttft_ms=5`` is ``--ttft-ms 5``, True a bare flag, a list a repeated option."""
    said: list[str] = []
    for knob, value in knobs.items():
        option = f"--{knob.replace('_', '-')}"
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is True:
                said.append(option)
            elif one is not None and one is not False:
                said += [option, json.dumps(one) if isinstance(one, dict) else str(one)]
    return said
