"""Time that passes when a test says so."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Call:
    """A call that was put off."""

    def __init__(self, what: Callable[[], None]) -> None:
        self.what: Callable[[], None] | None = what

    def cancel(self) -> None:
        """Do not call."""
        self.what = None


class VirtualTime:
    """A clock, and calls that are made when it comes to their time."""

    def __init__(self) -> None:
        self.now = 100.0
        self._calls: list[tuple[float, int, Call]] = []
        self._order = count()

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def call_later(self, seconds: float, what: Callable[[], None]) -> Call:
        """As an event loop has it."""
        call = Call(what)
        heapq.heappush(self._calls, (self.now + seconds, next(self._order), call))
        return call

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self._calls)
            if call.what is not None:
                call.what()
        self.now = end
