"""A vLLM server as a family of processes: started, watched, signalled and swept up together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from backend.serve_plan import VllmCommand
from gateway.policy.lora_resolvers import without_resolvers

_ENGINE_TITLE: Final = b"VLLM::EngineCore"
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class BoxError(Exception):
    """A box did not start, or is not in a state for what was asked of it. Carries the end of its log."""


class BoxProcess:
    """One vLLM server: an API process that clients talk to, its child the engine, and the engine's child the worker.

    A context manager: whatever happens, the whole family has ended when the block is left. Not for several threads.
    """

    def __init__(self, name: str, command: VllmCommand, *, log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the API process is there."""
        process = self._process
        if process is None or process.returncode is not None:
            return False
        # It is not reaped here: as long as it is a zombie, nobody else can get the id of its process group.
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def pid(self) -> int:
        """The API process's id. Raises BoxError if it does not run."""
        if self._process is None or not self.running:
            raise self.error("does not run")
        return self._process.pid

    def start(self) -> None:
        """Start the server, again if it has ended, without waiting for it; its log goes on in the same file.

        It inherits our environment but for what would have vLLM load adapters that requests name as paths.
        To be called from the main thread: Linux ends the server with the thread that started it. Raises BoxError if it
        runs already, OSError if it cannot be started.
        """
        if self.running:
            raise self.error("runs already")
        self.kill()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**without_resolvers(os.environ), **self._command.environment},
                start_new_session=True,
                preexec_fn=tie_to_parent(),
            )

    def engine_pid(self) -> int:
        """The engine process's id. Raises BoxError if there is none."""
        for child in _children(self.pid):
            if _command_line(child).startswith(_ENGINE_TITLE):
                return child
        raise self.error("has no engine process")

    def kill_engine(self) -> None:
        """SIGKILL to the engine process only, as the out-of-memory killer would. Raises BoxError if there is none."""
        os.kill(self.engine_pid(), signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL to the whole family at once, and wait for its end. Sweeps up what is left where it has ended.

        An engine outlives an API process that was killed alone.
        """
        if self._process is None or self._process.returncode is not None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session, so the group's id is its own
        self._process.wait()

    def terminate(self) -> None:
        """SIGTERM to the API process, without waiting.

        vLLM then ends its engine at once, unless it was told to drain. What runs is aborted or, as often, falls silent:
        the API process ends only when the last of its clients has left.
        """
        os.kill(self.pid, signal.SIGTERM)

    def sweep(self) -> int:
        """Kill what is left of the family of a server that has ended, or all of it; the server's exit status.

        Negative for a signal. Raises BoxError if it was never started.
        """
        if self._process is None:
            raise self.error("was never started")
        self.kill()
        return self._process.returncode

    def wait_until_ended(self, timeout_s: float = 30.0) -> int:
        """Block until the API process has ended by itself, and return its exit status, negative for a signal.

        Raises BoxError after ``timeout_s``, or if it was never started.
        """
        if self._process is None:
            raise self.error("was never started")
        if not self._ends_within(timeout_s):
            raise self.error(f"had not ended within {timeout_s:.0f} s")
        return self.sweep()

    def stop(self, grace_s: float = 10.0) -> None:
        """End it in good order, and the hard way after ``grace_s`` seconds. Does nothing where nothing runs."""
        if self.running:
            self.terminate()
            self._ends_within(grace_s)
        self.kill()

    def log_tail(self, lines: int = 20) -> str:
        """The end of what it printed."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def error(self, what: str) -> BoxError:
        """An error that says ``what`` of this box and shows the end of its log."""
        return BoxError(f"{self.name} {what}; its log {self.log} ends with:\n{self.log_tail()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ends_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` has started, and those that these have."""
    return [found for child in _children(pid) for found in (child, *descendants(child))]


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def tie_to_parent() -> Callable[[], None] | None:
    """What the new process runs before its program, so that it does not outlive us (prctl(2), PR_SET_PDEATHSIG)."""
    if _LIBC is None:
        return None
    prctl, parent = _LIBC.prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call above took effect
            os.kill(os.getpid(), signal.SIGKILL)

    return tie
