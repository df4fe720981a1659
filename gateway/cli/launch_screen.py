"""What `failsoft backend launch` shows: a table that moves in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from backend.start_progress import TITLES, Phase, StartProgress
from backend.supervisor import Ended, Event, LogLost, Progressed, Ready, Restarting, Starting, Stopped, Stopping

SHOWN: Final = tuple(phase for phase in Phase if phase is not Phase.READY)


class Screen:
    """One box's news. ``close`` leaves the terminal as it should be."""

    def __init__(self, box: str, console: Console) -> None:
        self._box = box
        self._console = console
        self._live: Live | None = None
        self._said: Phase | None = None

    def tell(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Starting):
            self._said = None
            if self._console.is_terminal:
                self._live = Live(_Start(event.progress), console=self._console, refresh_per_second=8, transient=True)
                self._live.start()
            else:
                self._phase(event.progress)
        elif isinstance(event, Progressed):
            if self._live is None:
                self._phase(event.progress)
        elif isinstance(event, LogLost):
            self.say(f"its log cannot be kept any more: {event.error}; it serves on", "yellow")
        else:
            self.close()
            self._ending(event)

    def close(self) -> None:
        """Take down what moves."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        """One line about the box."""
        self._console.print(Text.assemble((f"{self._box}: ", "bold"), (text, style)))

    def _ending(self, event: Ready | Ended | Restarting | Stopping | Stopped) -> None:
        if isinstance(event, Ready):
            now_s = time.monotonic()
            if self._console.is_terminal:
                self._console.print(_Start(event.progress))
            else:
                self._over(event.progress)
            self.say(f"ready after {event.progress.seconds(now_s):.1f} s: the base answered with a token", "green")
        elif isinstance(event, Ended):
            self._console.print(Text(event.tail, style="dim"))
            self.say(f"{event.why} ({_status(event.status)})", "red")
            if event.diagnosis is not None:
                self.say(f"{event.diagnosis.cause}: {event.diagnosis.advice}", "yellow")
        elif isinstance(event, Restarting):
            self.say(f"starts again in {event.in_s:g} s ({event.number} of {event.allowed})", "yellow")
        elif isinstance(event, Stopping):
            left = f"running requests have {event.within_s:g} s" if event.within_s else "nothing runs yet"
            self.say(f"{event.signal_name}: {left}; a second signal ends it at once")
        else:
            self.say("has ended" if event.in_order else "had to be killed", "" if event.in_order else "yellow")

    def _phase(self, progress: StartProgress) -> None:
        """A line where a phase begins; details come with the line that says that it is over."""
        if progress.phase == self._said or progress.phase is Phase.READY:
            return
        self._over(progress)
        self._said = progress.phase
        self.say(f"{TITLES[progress.phase]} …")

    def _over(self, progress: StartProgress) -> None:
        """A line for each phase that has ended since the last one was named."""
        now_s = time.monotonic()
        for phase in SHOWN:
            took_s = progress.seconds_in(phase, now_s)
            if self._said is not None and self._said <= phase < progress.phase and took_s is not None:
                detail = progress.details.get(phase)
                self.say(f"{TITLES[phase]}: {took_s:.1f} s{f', {detail}' if detail else ''}")


class _Start:
    """The table of one start; each drawing reads the progress and the clock anew."""

    def __init__(self, progress: StartProgress) -> None:
        self._progress = progress
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now_s = time.monotonic()
        table = Table.grid(padding=(0, 2))
        for phase in SHOWN:
            spent_s = self._progress.seconds_in(phase, now_s)
            mark: Text | Spinner = Text("·", style="dim")
            if phase == self._progress.phase:
                mark = self._spinner
            elif phase < self._progress.phase:
                mark = Text("✓", style="green") if spent_s is not None else Text("–", style="dim")
            seconds = "" if spent_s is None else f"{spent_s:.1f} s"
            style = "" if phase <= self._progress.phase else "dim"
            table.add_row(mark, Text(TITLES[phase], style=style), seconds, self._progress.details.get(phase, ""))
        yield table


def _status(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
