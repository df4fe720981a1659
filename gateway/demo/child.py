"""A process that the demo owns: started with a log of its own, killed, frozen, revived, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from gateway.demo.guardian import Guardian

State = Literal["up", "frozen", "killed", "ended"]


class Child:
    """One program, and the process it runs in now, if any.

    Should the demo be killed without a chance to clean up, ``guardian`` ends the process and all that it started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        guardian: Guardian,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = log
        self.state: State = "ended"
        self._guardian = guardian
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, also after its end; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the program anew, its output going to the end of its log. Raises OSError."""
        self._sweep()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends its children in order
            )
        self._guardian.watch(self._process.pid)
        self.state = "up"

    async def wait(self) -> int:
        """Wait for the process's end and return its exit status, negative for a signal. 0 if it never ran."""
        return 0 if self._process is None else await self._process.wait()

    async def kill(self) -> None:
        """End it as a crash would: at once, with everything it started."""
        self.state = "killed"
        self._signal(signal.SIGKILL)
        await self.wait()

    def freeze(self) -> None:
        """Stop it where it stands: the sockets stay open and nothing answers."""
        self.state = "frozen"
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.state = "up"
        self._signal(signal.SIGCONT)

    async def stop(self, grace_s: float) -> None:
        """End it in good order, or the hard way once ``grace_s`` seconds have passed."""
        if self._process is not None and self.running:
            self.state = "ended"
            self._process.terminate()  # it alone: it knows best how to end what it started
            self._signal(signal.SIGCONT)  # a frozen process would not see the SIGTERM
            try:
                await asyncio.wait_for(self.wait(), grace_s)
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await self.wait()
        self._sweep()

    def last_words(self, lines: int = 8) -> str:
        """The end of its log, for when it ended and should not have."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        """To the process and all that it started: it leads a session, so its id is the group's too."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # all of them have ended; `wait` reports how
                os.killpg(self._process.pid, number)

    def _sweep(self) -> None:
        """End what its process left behind, as a vLLM server that crashed leaves its engine."""
        if self._process is not None and not self.running:
            self._signal(signal.SIGKILL)
            self._guardian.release(self._process.pid)
