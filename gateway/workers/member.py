"""One worker process as its watcher has it: started, spoken with, and found out when it has ended or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.observe.export import Export
from gateway.workers.control_line import ControlDesk
from gateway.workers.line import Line
from gateway.workers.messages import FromWorker, Message, Telemetry

START_S = 60.0
"""Until its first word. The imports take a second of CPU on a fast core, and all workers start at once."""

SILENCE_S = 15.0
"""It says each second what it has counted; silent for so long it hangs."""

AWAY_S = 3.0
"""Silent for so long it may be about to: others take new connections in its place."""

LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What all workers are started with. ``listeners``: of each worker its own, or one for all; ``app`` answers what
    is not for the data plane."""

    workers: int
    drain_s: float
    log_format: Literal["human", "json"]
    env: Mapping[str, str]
    listeners: Sequence[socket.socket]
    app: Any


class Member:
    """Worker ``number``, in one incarnation after the other. ``on_message`` gets what it says, ``on_start`` is called
    once it can be spoken to.
    """

    def __init__(
        self, number: int, *, on_message: Callable[[Member, Any], None], on_start: Callable[[Member], None]
    ) -> None:
        self.number = number
        self.pid: int | None = None
        """None while there is no process."""
        self.ready = False
        """Whether it takes connections."""
        self.in_force: tuple[int, str] = (0, "")
        """The policy version that it decides by, 0 before the first, and the digest of its content."""
        self.begun = False
        """Whether it was told to."""
        self.in_flight = 0
        self.export = Export()
        self.answered = 0
        """The last question for its metrics that it has answered."""
        self._on_message = on_message
        self._on_start = on_start
        self._line: Line | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._silent_s = 0.0

    def facts(self) -> dict[str, Any]:
        """For people."""
        return {
            "worker": self.number,
            "pid": self.pid,
            "alive": self.pid is not None,
            "ready": self.ready,
            "in_flight": self.in_flight,
            "policy_version": self.in_force[0],
        }

    @property
    def takes_connections(self) -> bool:
        """Whether it says so, and is not suspiciously silent."""
        return self.ready and self._silent_s < AWAY_S

    def send(self, message: Message) -> None:
        """Tell it something, where it is there."""
        if self._line is not None:
            self._line.send(message)

    def send_framed(self, frame: bytes) -> None:
        """The same."""
        if self._line is not None:
            self._line.send_framed(frame)

    def kill(self) -> None:
        """End it now."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def live(self, terms: Terms) -> str:
        """One incarnation, from start to end; how it ended. Raises OSError where it cannot be started."""
        line = Line(FromWorker, on_message=self._take)
        desk = ControlDesk(terms.app)
        try:
            process = await self._start(terms, line, desk)
            self._process, self.pid, self._line = process, process.pid, line
            self._silent_s = SILENCE_S - START_S
            self._on_start(self)
            why = await self._end_of(process)
            # What it said last is still to be read.
            await line.ended()
            return why
        finally:
            self.kill()
            if self._process is not None:
                await self._process.wait()
            self.pid = self._process = self._line = None
            self.ready = self.begun = False
            self.in_flight = 0
            await line.hang_up()
            await desk.close()

    async def _start(self, terms: Terms, line: Line, desk: ControlDesk) -> asyncio.subprocess.Process:
        with contextlib.ExitStack() as unless_started:
            ours, theirs = socket.socketpair()
            our_control, their_control = socket.socketpair()
            for end in (ours, our_control):
                unless_started.callback(end.close)
            with theirs, their_control:
                listeners = [listener.fileno() for listener in terms.listeners]
                line_end, control_end = theirs.fileno(), their_control.fileno()
                # A session of its own: Ctrl-C in a terminal goes to the watcher, which ends all in order.
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "gateway.workers"),
                    *("--worker", str(self.number), "--workers", str(terms.workers)),
                    *(f"--listener={listener}" for listener in listeners),
                    *("--line", str(line_end), "--control", str(control_end)),
                    *("--drain", str(terms.drain_s), "--log-format", terms.log_format),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(*listeners, line_end, control_end),
                    start_new_session=True,
                    env=dict(terms.env),
                )
            unless_started.pop_all()
        await line.open(ours)
        await desk.open(our_control)
        return process

    async def _end_of(self, process: asyncio.subprocess.Process) -> str:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    status = await process.wait()
            except TimeoutError:
                # Looks, not the clock: what came while this process itself stood still was not read yet.
                self._silent_s += LOOK_S
                if self._silent_s > SILENCE_S:
                    return f"hung for {SILENCE_S:g} s"
            else:
                return f"ended with status {status}"

    def _take(self, told: Any) -> None:
        self._silent_s = 0.0
        if isinstance(told, Telemetry):
            self.in_flight, self.export = told.in_flight, told.export
            self.answered = max(self.answered, told.asked)
        self._on_message(self, told)
