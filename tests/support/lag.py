"""How long a loaded machine made the processes of a test wait: what bounds on time have to allow for."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")


class Lag:
    """The seconds, from when it was made, for which this process and all that it started, taken together, were ready to
    run and had no CPU, as the kernel counts them (the second field of /proc/PID/schedstat).

    On an idle machine that is next to nothing; a frozen process, or one that waits for another, is not ready to run.
    """

    def __init__(self) -> None:
        self._before = _waited_ns()

    @property
    def s(self) -> float:
        """Until now."""
        return sum(waited - self._before.get(pid, 0) for pid, waited in _waited_ns().items()) / 1e9


class Until:
    """So many seconds from now, and what the machine takes meanwhile."""

    def __init__(self, within_s: float) -> None:
        self._at = time.monotonic() + within_s
        self._lag = Lag()

    @property
    def lag_s(self) -> float:
        """What it has taken so far."""
        return self._lag.s

    @property
    def over(self) -> bool:
        """Whether they have passed."""
        now = time.monotonic()
        return now > self._at and now > self._at + self.lag_s


def _waited_ns() -> dict[int, int]:
    """By process, of those that live."""
    waited: dict[int, int] = {}
    left = [os.getpid()]
    while left:
        pid = left.pop()
        try:
            waited[pid] = int((PROC / str(pid) / "schedstat").read_text().split()[1])
            # A child is its parent's thread's that started it.
            for thread in (PROC / str(pid) / "task").iterdir():
                left += map(int, (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            # It, or one of its threads, has ended meanwhile: nobody waits for that any more.
            continue
    return waited
