"""How much traffic a box takes besides what its breaker says: pure, time is handed in.

A box that an operator drains gets nothing new. One that was away (refused, or silent) gets no customer before it has
shown a real token, as an open port and a 200 from `/health` come long before that; from then on it gets more from
second to second, as its caches are cold and its adapters have to be loaded, and the other boxes take the rest. Nginx
and Envoy call that slow start. Where there is no other box, a cold one is better than another model.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import Reason

RAMP_FIRST = 8
"""Attempts in flight that a box may have as it comes back: as many as the usual box has LoRA slots."""

RAMP_DOUBLES_S = 0.5
"""Seconds in which that doubles."""

RAMP_S = 4.0
"""Seconds after which the box takes all. By then the ramp stands at 2,048: more than a box's sequence slots."""


@dataclass(frozen=True, slots=True)
class DutyFinding:
    """All of it, for another process. ``back_at``: since when it comes back, in monotonic seconds."""

    drained: bool = False
    away: bool = False
    back_at: float | None = None


class Duty:
    """Whether and how far one box is on duty. ``drained``: an operator took it off."""

    __slots__ = ("_away", "_back_at", "drained", "on")

    def __init__(self) -> None:
        self.drained = False
        self.on = True
        """Whether the box may get anything new."""
        self._away = False
        self._back_at: float | None = None

    def away(self) -> None:
        """It refuses connections, or is silent."""
        self._away = True
        self.on = False
        self._back_at = None

    def answered(self, now: float) -> None:
        """It showed a token, or some other answer that only a server with its model loaded gives."""
        if self._away:
            self._away = False
            self.on = not self.drained
            self._back_at = now

    def drain(self) -> None:
        """Nothing new goes there; what runs goes on."""
        self.drained = True
        self.on = False
        self._back_at = None

    def undrain(self, now: float) -> None:
        """It takes traffic again, in a ramp."""
        if self.drained:
            self.drained = False
            self.on = not self._away
            self._back_at = now

    def finding(self) -> DutyFinding:
        """All of it."""
        return DutyFinding(self.drained, self._away, self._back_at)

    def follow(self, found: DutyFinding) -> None:
        """Be as another process has found it."""
        self.drained, self._away, self._back_at = found.drained, found.away, found.back_at
        self.on = not (found.drained or found.away)

    @property
    def condition(self) -> Reason | None:
        """None while the box is on duty; else why not."""
        if self.drained:
            return Reason.FORCED
        return Reason.CIRCUIT_OPEN if self._away else None

    @property
    def ramps(self) -> bool:
        """Whether it is worth a look at the clock if the box is in its ramp."""
        return self._back_at is not None

    def in_ramp(self, now: float) -> bool:
        """Whether the box came back only lately."""
        return self._back_at is not None and now < self._back_at + RAMP_S

    def has_its_share(self, in_flight: int, now: float) -> bool:
        """Whether a box that comes back has as much ``in_flight`` as is good for it now."""
        if self._back_at is None or in_flight < RAMP_FIRST:
            return False
        return self.in_ramp(now) and in_flight >= RAMP_FIRST * 2 ** ((now - self._back_at) / RAMP_DOUBLES_S)
