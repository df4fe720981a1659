"""A worker process's copy of a breaker or back-off that all workers share: pure, time is handed in.

The one that counts is the watcher's. A copy acts at once on what its own process sees, and is then made equal to the
watcher's, which has seen all. Two things it leaves to the watcher: the share of failures, of which one process sees a
part, and whose turn a trial is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.fleet.back_off import BackOff, Turn, Wait
from gateway.fleet.breaker import Breaker, Finding, Permit, State
from gateway.fleet.failure_rate import FailureRate

TURN_S = 0.2
"""For so long one worker after the other may begin trials. A revived adapter's next requests come to all workers, so
that one of them meets its worker's turn soon."""

GUARD_S = 0.05
"""At the end of a turn in which none begins any more, so that the next worker has heard of it: news takes a
millisecond."""


@dataclass(frozen=True, slots=True)
class TrialTurns:
    """Which worker may begin a trial when: by the clock, which all processes of a machine share, so that nobody has to
    ask, and the turns of a worker that died simply pass."""

    worker: int
    workers: int

    def may_begin(self, now: float) -> bool:
        """Whether this worker may, at ``now`` in monotonic seconds."""
        number, into_s = divmod(now, TURN_S)
        return int(number) % self.workers == self.worker and into_s < TURN_S - GUARD_S


class _NoRate(FailureRate):
    """Never too many."""

    def succeeded(self, now: float, count: int = 1) -> None:
        """Not counted."""

    def failed(self, now: float) -> bool:
        """Not counted."""
        return False

    def forget(self) -> None:
        """There is nothing."""


class SharedBreaker(Breaker):
    """``may_try`` says whether this process may begin a trial at a time."""

    __slots__ = ("_may_try", "_taken")

    def __init__(self, may_try: Callable[[float], bool], on_change: Callable[[State], None] | None = None) -> None:
        super().__init__(on_change=on_change)
        self._rate = _NoRate()
        self._may_try = may_try
        self._taken = False

    def admits(self, now: float) -> bool:
        """Whether :meth:`begin` would give a permit."""
        if self._state == "closed":
            return True
        return not self._taken and super().admits(now) and self._may_try(now)

    def begin(self, now: float, *, force: bool = False) -> Permit | None:
        """Let an attempt in, or None; a trial only where no other process makes one."""
        if self._state == "closed" or self.admits(now):
            return super().begin(now, force=force)
        return Permit(self, self._epoch, forced=True) if force else None

    def follow(self, found: Finding, *, taken: bool) -> None:
        """Be as the watcher's is. ``taken``: another process makes the trial. An own one goes on."""
        self._state = found.state
        self._failures = found.failures
        self._opened_at = found.opened_at
        self._open_for_s = found.open_for_s
        if self._epoch != found.epoch or found.state == "closed":
            self._trial = None
        self._epoch = found.epoch
        self._taken = taken


class SharedBackOff(BackOff):
    """The same of a back-off."""

    __slots__ = ("_may_try", "_taken")

    def __init__(self, may_try: Callable[[float], bool]) -> None:
        super().__init__()
        self._may_try = may_try
        self._taken = False

    def admits(self, now: float) -> bool:
        """Whether :meth:`begin` would give a turn."""
        return self._until is None or (not self._taken and super().admits(now) and self._may_try(now))

    def begin(self, now: float, *, force: bool = False) -> Turn | None:
        """Let an attempt in, or None; a trial only where no other process makes one."""
        if self.admits(now):
            return super().begin(now, force=force)
        if self._until is not None and now < self._until:
            return None
        return Turn(self, self._epoch) if force else None

    def follow(self, found: Wait, *, taken: bool) -> None:
        """Be as the watcher's is."""
        self._until = found.until
        self._growth_s = found.growth_s
        if self._epoch != found.epoch or found.until is None:
            self._trial = None
        self._epoch = found.epoch
        self._taken = taken
