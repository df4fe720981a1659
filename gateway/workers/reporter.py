"""A worker's side of what it tells the watcher about boxes and providers, and what it keeps until that was heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.fleet.blame import Failure
from gateway.fleet.provider_health import ProviderFailure
from gateway.fleet.shared_breaker import TrialTurns
from gateway.workers.messages import (
    BoxReport,
    Message,
    Outcome,
    Pass,
    ProviderOutcome,
    ProviderTrial,
    Report,
    Trial,
)
from gateway.workers.news import NOBODY

REPORT_S = 0.01
"""How long what happened at a box may wait to be told with more of it. A time to first token is longer."""


class Reporting(Protocol):
    """A box that has something to tell."""

    key: str

    def report(self) -> BoxReport:
        """What happened since this was asked last."""


class Reporter:
    """``send`` says it; ``later`` calls something once, ``REPORT_S`` from now; ``turns``: whose turn a trial is."""

    def __init__(
        self, send: Callable[[Message], None], later: Callable[[Callable[[], None]], None], turns: TrialTurns
    ) -> None:
        self._send = send
        self._later = later
        self._touched: dict[Reporting, None] = {}
        self._waiting = False
        self._unheard: deque[tuple[int, list[tuple[str, list[str]]]]] = deque()
        self._worker = turns.worker
        self.may_try = turns.may_begin
        """Whether this worker may begin a trial at a time."""
        self.number = 0
        """Of the last thing that was told."""

    def is_anothers(self, trial: int) -> bool:
        """Whether a trial, by whose it is, is one of another process."""
        return trial not in (NOBODY, self._worker)

    def touch(self, box: Reporting) -> None:
        """Something happened at ``box``."""
        self._touched[box] = None
        if not self._waiting:
            self._waiting = True
            self._later(self.flush)

    def flush(self, traffic: Mapping[str, dict[str, int]] | None = None) -> None:
        """Tell all that has not been told."""
        self._waiting = False
        if not self._touched and not traffic:
            return
        touched, self._touched = self._touched, {}
        boxes = [box.report() for box in touched]
        number = self._next()
        if used := [(box.key, box.used) for box in boxes if box.used]:
            self._unheard.append((number, used))
        self._send(Report(number, boxes, dict(traffic or {})))

    def heard(self, number: int) -> None:
        """The watcher has taken in all up to ``number``."""
        while self._unheard and self._unheard[0][0] <= number:
            self._unheard.popleft()

    def unheard_uses(self, key: str) -> list[str]:
        """The adapters for which requests were sent to a box and of which the watcher did not know yet, in order."""
        return [name for _, boxes in self._unheard for box, used in boxes if box == key for name in used]

    def outcome(
        self, key: str, adapter: str | None, at: float, box: Pass, pair: Pass | None, failure: Failure | None
    ) -> int:
        """An attempt at a box told something; the number under which it was told."""
        self._send(Outcome(self._next(), key, adapter, at, box, pair, failure))
        return self.number

    def trial(self, key: str, adapter: str | None, at: float, *, of_box: bool, over: int = 0) -> int:
        """A trial began, or the one of the number ``over`` is over."""
        self._send(Trial(self._next(), key, adapter, at, of_box, over))
        return self.number

    def provider_outcome(self, name: str, at: float, breaker: Pass, turn: Pass, failure: ProviderFailure | None) -> int:
        """An attempt at a provider told something."""
        self._send(ProviderOutcome(self._next(), name, at, breaker, turn, failure))
        return self.number

    def provider_trial(self, name: str, at: float, *, of_breaker: bool, over: int = 0) -> int:
        """The same of a provider's."""
        self._send(ProviderTrial(self._next(), name, at, of_breaker, over))
        return self.number

    def _next(self) -> int:
        self.number += 1
        return self.number
