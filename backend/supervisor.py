"""Keeps one vLLM server alive: starts it, follows its start, starts it again after a crash, ends it in good order."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from backend.box_process import BoxProcess
from backend.diagnosis import Diagnosis, diagnose
from backend.first_token import FirstToken
from backend.log_file import LogFile
from backend.restarts import Restarts
from backend.start_progress import StartProgress
from gateway.tasks import TaskSet

POLL_S: Final = 0.1
PROBE_EVERY_S: Final = 0.4
TRIM_EVERY_S: Final = 5.0
TEAR_DOWN_S: Final = 10.0
"""What vLLM may take to end beyond the time that it was given for running requests."""
TAIL_LINES: Final = 20
LAST_LINES: Final = 200
"""Of a server that had served, where the cause of its end is looked for."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Starting:
    """A start begins; ``progress`` goes on changing."""

    progress: StartProgress


@dataclass(frozen=True, slots=True)
class Progressed:
    """The start has come further."""

    progress: StartProgress


@dataclass(frozen=True, slots=True)
class Ready:
    """A token came."""

    progress: StartProgress


@dataclass(frozen=True, slots=True)
class Ended:
    """The server ended unasked, or was ended as it did not get ready. ``status``: of its process."""

    status: int
    why: str
    tail: str
    diagnosis: Diagnosis | None


@dataclass(frozen=True, slots=True)
class Restarting:
    """It will be started again: for the ``number``-th time of at most ``allowed``."""

    in_s: float
    number: int
    allowed: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """A signal came. ``within_s``: how long what runs may go on; 0 if it is killed."""

    signal_name: str
    within_s: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """It has ended as it was told. ``in_order``: False where it had to be killed."""

    in_order: bool


@dataclass(frozen=True, slots=True)
class LogLost:
    """What vLLM prints cannot be read or kept within bounds any more; it serves on."""

    error: OSError


Event = Starting | Progressed | Ready | Ended | Restarting | Stopping | Stopped | LogLost


@dataclass(frozen=True, slots=True)
class Patience:
    """``start_s``: for the first token. ``drain_s``: for running requests after SIGTERM."""

    start_s: float
    drain_s: float


class Supervisor:
    """One box. ``adapters``: how many are registered at its start. ``tell`` is given each event, in order."""

    def __init__(
        self,
        process: BoxProcess,
        log: LogFile,
        first_token: FirstToken,
        *,
        adapters: int,
        restarts: int,
        patience: Patience,
        tell: Callable[[Event], None],
    ) -> None:
        self._process = process
        self._log = log
        self._first_token = first_token
        self._adapters = adapters
        self._allowed = restarts
        self._patience = patience
        self._tell = tell
        self._signals: list[signal.Signals] = []
        self._told = asyncio.Event()
        self._log_lost = False

    async def run(self) -> bool:
        """Serve until a signal comes, which is True, or until no start is left, which is False. Raises OSError."""
        loop = asyncio.get_running_loop()
        # nohup has SIGHUP ignored, which is to stay so.
        followed = [one for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
        for one in followed:
            loop.add_signal_handler(one, self._signalled, one)
        try:
            return await self._live()
        finally:
            self._process.kill()
            await self._first_token.close()
            for one in followed:
                loop.remove_signal_handler(one)

    def stop(self) -> None:
        """As SIGTERM does."""
        self._signalled(signal.SIGTERM)

    def _signalled(self, one: signal.Signals) -> None:
        self._signals.append(one)
        self._told.set()

    async def _live(self) -> bool:
        restarts = Restarts(self._allowed)
        began_once = False
        while True:
            self._log.open()
            position = self._log.position()
            self._log_lost = False
            self._process.start()
            served_s, why = await self._one_life()
            if self._signals:
                await self._stop(serving=served_s is not None)
                return True
            by_itself = not self._process.running
            status = self._process.sweep()
            text = self._of_log(partial(self._log.since, position), "")
            # What went wrong for one request hours ago did not end the server.
            lines = text.splitlines()[0 if served_s is None else -LAST_LINES :]
            diagnosis = diagnose("\n".join(lines), status if by_itself else 0)
            self._tell(Ended(status, why, "\n".join(lines[-TAIL_LINES:]), diagnosis))
            began_once = began_once or served_s is not None
            wait_s = restarts.after_crash(served_s) if began_once else None
            if wait_s is None or (served_s is None and diagnosis is not None and diagnosis.lasting):
                return False
            self._tell(Restarting(wait_s, restarts.used, self._allowed))
            if await self._signal_within(wait_s):
                self._tell(Stopped(in_order=True))
                return True

    async def _one_life(self) -> tuple[float | None, str]:
        """Until the server has ended, or is to be: for how long it had answered, None for never, and why it ends."""
        progress = StartProgress(self._adapters, time.monotonic())
        self._tell(Starting(progress))
        tasks = TaskSet()
        try:
            probe = tasks.spawn(self._until_a_token(), name="probe for a first token")
            while not probe.done():
                if not self._process.running:
                    return None, "ended while it started"
                if progress.seconds(time.monotonic()) > self._patience.start_s:
                    latest = self._first_token.last_answer
                    return None, f"gave no token within {self._patience.start_s:.0f} s: the last answer was {latest}"
                if await self._signal_within(POLL_S):
                    return None, ""
                self._follow(progress)
            await probe
            self._follow(progress)
            progress.answered(ready_s := time.monotonic())
            self._tell(Ready(progress))
        finally:
            await tasks.close()
        await self._serve()
        return time.monotonic() - ready_s, "ended while it served"

    def _of_log(self, action: Callable[[], _Value], otherwise: _Value) -> _Value:
        """A full disk or a file that somebody removed ends no box: it is told once."""
        try:
            return action()
        except OSError as error:
            if not self._log_lost:
                self._log_lost = True
                self._tell(LogLost(error))
            return otherwise

    def _follow(self, progress: StartProgress) -> None:
        now_s = time.monotonic()
        none: list[str] = []
        news = [progress.feed(line, now_s) for line in self._of_log(self._log.new_lines, none)]
        if any(news):
            self._tell(Progressed(progress))

    async def _serve(self) -> None:
        trimmed_s = time.monotonic()
        while self._process.running and not await self._signal_within(POLL_S):
            if time.monotonic() - trimmed_s >= TRIM_EVERY_S:
                trimmed_s = time.monotonic()
                self._of_log(self._log.trim, False)

    async def _until_a_token(self) -> None:
        while not await self._first_token.given():  # noqa: ASYNC110 - nobody would tell us
            await asyncio.sleep(PROBE_EVERY_S)

    async def _stop(self, *, serving: bool) -> None:
        """SIGTERM for the server, which then drains; SIGKILL when its time is over or a second signal comes."""
        drain_s = self._patience.drain_s if serving else 0.0
        self._tell(Stopping(self._signals[0].name, drain_s))
        self._told.clear()
        if self._process.running:
            self._process.terminate()
        until_s = time.monotonic() + drain_s + TEAR_DOWN_S
        while self._process.running and time.monotonic() < until_s and not await self._signal_within(POLL_S):
            continue
        in_order = not self._process.running
        self._process.kill()
        self._tell(Stopped(in_order))

    async def _signal_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._told.wait(), seconds)
        except TimeoutError:
            return False
        return True
