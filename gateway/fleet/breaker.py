"""A circuit breaker as a pure state machine: time is handed in, nothing else is read.

The pattern is Michael Nygard's (*Release It!*, 2007) with four additions. It opens on failures in a row and on too
high a share of them. Half-open lets one trial through at a time, and its slot always comes back. What is learned from
an attempt counts only while the breaker is as it was when the attempt began, so that the late failures of one outage
neither lengthen it nor start the next. And an attempt may be let in beside the breaker's rule (a probe, a last resort):
its success counts, its failure changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from gateway.fleet.failure_rate import FailureRate

State = Literal["closed", "open", "half_open"]

THRESHOLD = 3
"""Failures in a row that open the breaker."""

FIRST_OPEN_S = 1.0
LONGEST_OPEN_S = 8.0
"""How long it stays open at first and at most; it doubles with each failed trial (design, "The life of a request")."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A breaker as it is. ``failures``: in a row, while it is closed. Times are monotonic, in seconds."""

    state: State = "closed"
    failures: int = 0
    opened_at: float = 0.0
    open_for_s: float = FIRST_OPEN_S
    epoch: int = 0


class Breaker:
    """One target's breaker. ``on_change`` hears of each new state, from within the call that brought it about."""

    __slots__ = (
        "_epoch",
        "_failures",
        "_on_change",
        "_open_for_s",
        "_opened_at",
        "_rate",
        "_state",
        "_trial",
        "threshold",
    )

    def __init__(self, *, threshold: int = THRESHOLD, on_change: Callable[[State], None] | None = None) -> None:
        self.threshold = threshold
        self._on_change = on_change
        self._state: State = "closed"
        self._failures = 0
        self._rate = FailureRate()
        self._opened_at = 0.0
        self._open_for_s = FIRST_OPEN_S
        self._epoch = 0
        self._trial: Permit | None = None

    def state(self, now: float) -> State:
        """``half_open`` as soon as a trial may be made, whether or not one is being made."""
        if self._state == "open" and now >= self.retry_at:
            return "half_open"
        return self._state

    @property
    def epoch(self) -> int:
        """Counts every opening and closing: evidence from an earlier one is stale."""
        return self._epoch

    @property
    def closed(self) -> bool:
        """Whether everybody is let in."""
        return self._state == "closed"

    @property
    def clean(self) -> bool:
        """Whether a success would tell it nothing."""
        return self._state == "closed" and not self._failures

    @property
    def opened_at(self) -> float | None:
        """When it last opened; None while it is closed."""
        return None if self._state == "closed" else self._opened_at

    @property
    def retry_at(self) -> float:
        """From when on a trial may be made, while the breaker is not closed."""
        return self._opened_at + self._open_for_s

    def admits(self, now: float) -> bool:
        """Whether :meth:`begin` would give a permit."""
        return self._state == "closed" or (now >= self.retry_at and self._trial is None)

    def begin(self, now: float, *, force: bool = False) -> Permit | None:
        """Let an attempt in, or None. ``force`` lets it in beside the rule where the rule would not."""
        if self._state == "closed":
            return Permit(self, self._epoch)
        if now >= self.retry_at and self._trial is None:
            self._trial = permit = Permit(self, self._epoch)
            self._become("half_open")
            return permit
        return Permit(self, self._epoch, forced=True) if force else None

    def trip(self, now: float) -> None:
        """Open at once, on evidence from elsewhere. An open breaker stays as it is."""
        if self._state == "closed":
            self._open(now, FIRST_OPEN_S)

    def hold(self, now: float, for_s: float) -> None:
        """Be open for so long, or as long as it is already; a trial that runs counts no more."""
        if self._state == "closed" or self._trial is not None or self.retry_at < now + for_s:
            self._open(now, for_s)

    # What several processes that share it tell each other.

    @property
    def tried(self) -> bool:
        """Whether the half-open breaker's one trial runs."""
        return self._trial is not None

    def is_trial(self, permit: Permit) -> bool:
        """Whether ``permit`` is that trial's."""
        return self._trial is permit

    def finding(self) -> Finding:
        """All that another process has to know of it, but for a running trial."""
        return Finding(self._state, self._failures, self._opened_at, self._open_for_s, self._epoch)

    def succeeded_elsewhere(self, count: int, now: float) -> None:
        """So many attempts succeeded while there was nothing to be cleared of."""
        self._rate.succeeded(now, count)

    # What permits call.

    def _succeeded(self, permit: Permit, now: float) -> None:
        if permit.epoch != self._epoch:
            return
        self._failures = 0
        self._rate.succeeded(now)
        if self._state != "closed":
            self._trial = None
            self._epoch += 1
            self._open_for_s = FIRST_OPEN_S
            self._become("closed")
        # What comes later of the same attempt, such as a broken stream, is news about the breaker as it is now.
        permit.epoch = self._epoch
        permit.forced = False

    def _failed(self, permit: Permit, now: float, weight: int) -> None:
        if permit.epoch != self._epoch or permit.forced:
            return
        if self._trial is permit:
            self._open(now, min(LONGEST_OPEN_S, self._open_for_s * 2))
        elif self._state == "closed":
            self._failures += weight
            if self._rate.failed(now) or self._failures >= self.threshold:
                self._open(now, FIRST_OPEN_S)

    def _released(self, permit: Permit) -> None:
        if self._trial is permit:
            self._trial = None

    def _open(self, now: float, for_s: float) -> None:
        self._trial = None
        self._failures = 0
        self._rate.forget()
        self._epoch += 1
        self._opened_at = now
        self._open_for_s = for_s
        self._become("open")

    def _become(self, state: State) -> None:
        if self._state != state:
            self._state = state
            if self._on_change is not None:
                self._on_change(state)


class Permit:
    """An attempt that the breaker let in.

    ``succeeded`` may be told any number of times; ``failed`` or ``released`` ends the permit, and what is told after
    that is ignored. As a context manager it is released at the end.
    """

    __slots__ = ("_breaker", "_ended", "epoch", "forced")

    def __init__(self, breaker: Breaker, epoch: int, *, forced: bool = False) -> None:
        self._breaker = breaker
        self._ended = False
        self.epoch = epoch
        self.forced = forced

    @property
    def trial(self) -> bool:
        """Whether it is the half-open breaker's one trial."""
        return self._breaker._trial is self

    def succeeded(self, now: float) -> None:
        """The target answered."""
        if not self._ended:
            self._breaker._succeeded(self, now)

    def failed(self, now: float, *, weight: int = 1) -> None:
        """The target failed; ``weight`` is how many failures this one counts as."""
        if not self._ended:
            self._ended = True
            self._breaker._failed(self, now, weight)
            self._breaker._released(self)

    def released(self) -> None:
        """The attempt is over and says nothing about the target."""
        if not self._ended:
            self._ended = True
            self._breaker._released(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.released()
