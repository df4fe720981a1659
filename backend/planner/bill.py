"""What an option costs a month. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from backend.planner.run import Run

HOURS_A_MONTH = 730.0
"""365 days of 24 hours, by twelve."""


@dataclass(frozen=True, slots=True)
class Prices:
    """``gpu_usd_per_hour``: of one box. The default is what the report that this project starts from paid: about 1,200
    USD a month for two."""

    gpu_usd_per_hour: float = 0.82


@dataclass(frozen=True, slots=True)
class Bill:
    """USD a month. ``hosted``: what providers would cost if the traffic went on like this day and night."""

    boxes: float
    hosted: float
    unpriced: bool
    """Some answers came from a provider whose price is not known, and count as nothing."""

    @property
    def total(self) -> float:
        """USD a month."""
        return self.boxes + self.hosted


def bill_of(run: Run, prices: Prices) -> Bill:
    """The bill of a run."""
    months = run.counted_s / 3600 / HOURS_A_MONTH
    return Bill(
        boxes=run.option.boxes * prices.gpu_usd_per_hour * HOURS_A_MONTH,
        hosted=run.hosted_usd / months if months > 0 else 0.0,
        unpriced=run.unpriced > 0,
    )
