"""Whether a box is too slow for a budget, with hysteresis: a pure value, each next one made from an estimate and a
time.

Entered at once when the estimate is over the budget, left when it has been well below it for a while: two thresholds
and a dwell time, as a thermostat has them, so that an estimate that wavers about the budget does not make traffic
waver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

LEAVE_SHARE = 0.7
"""Of the budget: the estimate has to be below this to leave."""

DWELL_S = 1.0
"""For how long, without a break; and for as long it stays out once it has left. So it flips once in that time at
most."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """One box as seen by requests of one kind: those for one adapter, whose estimates are alike.

    ``since_s``: when it last flipped. ``low_since_s``: since when the estimate has been low while saturated. Frozen, so
    that a plan can be explained without changing what the next one sees.
    """

    saturated: bool = False
    since_s: float | None = None
    low_since_s: float | None = None

    def after(self, estimate_s: float | None, budget_s: float, now: float) -> Saturation:
        """What it is once ``estimate_s`` was seen at ``now``; None, as nothing speaks against the box, counts as
        low."""
        if not self.saturated:
            rested = self.since_s is None or now - self.since_s >= DWELL_S
            if rested and estimate_s is not None and estimate_s > budget_s:
                return Saturation(saturated=True, since_s=now)
            return self
        if estimate_s is not None and not estimate_s < LEAVE_SHARE * budget_s:
            return self if self.low_since_s is None else replace(self, low_since_s=None)
        if self.low_since_s is None:
            return replace(self, low_since_s=now)
        if now - self.low_since_s >= DWELL_S:
            return Saturation(saturated=False, since_s=now)
        return self

    def idle(self, now: float) -> bool:
        """Whether it remembers nothing that the next estimate would need, so that it can be dropped."""
        return not self.saturated and (self.since_s is None or now - self.since_s >= DWELL_S)
