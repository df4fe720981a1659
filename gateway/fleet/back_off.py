"""How long a target that says it has too much to do is left alone, as a pure state machine: time is handed in.

A 429 is load and no failure, so no breaker hears of it. The target is not asked before the time that it named, or,
where it named none, after a wait that doubles while it goes on. Then one attempt at a time finds out, as in a half-open
breaker, until one succeeds: everybody at once would bring the next 429.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 1.0
LONGEST_S = 8.0
"""The wait where none is named, at first and at most; those of a breaker."""

LONGEST_NAMED_S = 60.0
"""A longer one is not believed: some providers name the end of the day, and serve again within the minute."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A back-off as it is. ``until``: monotonic seconds; None once the target has answered since."""

    until: float | None = None
    growth_s: float = FIRST_S
    epoch: int = 0


class BackOff:
    """One target's. What an attempt learns counts only if no back-off began since it was let in (see Breaker)."""

    __slots__ = ("_epoch", "_growth_s", "_trial", "_until")

    def __init__(self) -> None:
        self._until: float | None = None
        self._growth_s = FIRST_S
        self._epoch = 0
        self._trial: Turn | None = None

    @property
    def until(self) -> float | None:
        """When it may be asked again; None once it has answered since."""
        return self._until

    def waits(self, now: float) -> bool:
        """Whether nobody may ask it at all."""
        return self._until is not None and now < self._until

    def admits(self, now: float) -> bool:
        """Whether :meth:`begin` would give a turn."""
        return self._until is None or (now >= self._until and self._trial is None)

    def begin(self, now: float, *, force: bool = False) -> Turn | None:
        """Let an attempt in, or None. ``force`` lets it in beside the running trial, never into the wait."""
        if self._until is None:
            return Turn(self, self._epoch)
        if now < self._until:
            return None
        if self._trial is None:
            self._trial = turn = Turn(self, self._epoch)
            return turn
        return Turn(self, self._epoch) if force else None

    # What several processes that share it tell each other.

    @property
    def tried(self) -> bool:
        """Whether the one attempt that finds out runs."""
        return self._trial is not None

    def finding(self) -> Wait:
        """All that another process has to know of it, but for a running trial."""
        return Wait(self._until, self._growth_s, self._epoch)

    # What turns call.

    def _refused(self, turn: Turn, now: float, named_s: float | None) -> bool:
        current = turn.epoch == self._epoch
        if named_s is not None and named_s > 0:
            until = now + min(named_s, LONGEST_NAMED_S)
        elif current:
            until = now + self._growth_s
            self._growth_s = min(LONGEST_S, self._growth_s * 2)
        else:
            return False
        # A late one, too, may name a time, and is obeyed; it shortens no wait.
        self._until = until if current or self._until is None else max(self._until, until)
        self._epoch += 1
        self._trial = None
        return True

    def _succeeded(self, turn: Turn) -> bool:
        if turn.epoch != self._epoch or self._until is None:
            return False
        self._until = None
        self._growth_s = FIRST_S
        self._epoch += 1
        self._trial = None
        turn.epoch = self._epoch
        return True

    def _released(self, turn: Turn) -> None:
        if self._trial is turn:
            self._trial = None


class Turn:
    """An attempt that was let in. ``succeeded`` may be told any number of times; the other two end it."""

    __slots__ = ("_back_off", "_ended", "epoch")

    def __init__(self, back_off: BackOff, epoch: int) -> None:
        self._back_off = back_off
        self._ended = False
        self.epoch = epoch

    @property
    def trial(self) -> bool:
        """Whether it is the one that finds out if the wait is over."""
        return self._back_off._trial is self

    def succeeded(self) -> bool:
        """The target answered. Whether that ended a back-off."""
        return not self._ended and self._back_off._succeeded(self)

    def refused(self, now: float, named_s: float | None) -> bool:
        """The target has too much to do, and named the seconds to wait or None. Whether a back-off began."""
        if self._ended:
            return False
        began = self._back_off._refused(self, now, named_s)
        self.released()
        return began

    def released(self) -> None:
        """The attempt is over and says nothing about load."""
        if not self._ended:
            self._ended = True
            self._back_off._released(self)
