"""How often a box would swap, from the rates of the adapters that live there: pure.

Che's approximation of an LRU cache (H. Che, Y. Tung, Z. Wang, *Hierarchical Web Caching Systems: Modeling, Design and
Experimental Results*, 2002): an adapter that is not asked for in a time T, the same for all, has lost its slot. With
Poisson arrivals at rates r, T is where the expected number of those that were asked for, Σ 1 - exp(-r·T), is the
number of slots; what comes after a longer pause misses: Σ r·exp(-r·T) a second.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import exp, inf

_PRECISION = 1e-4
_MOST_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Pressure:
    """A box's slots under its adapters. ``time_s``: the T above. ``per_slot``: the misses a second that one more slot
    would save, to the first order, which is also what one more adapter that takes a whole slot would cost."""

    time_s: float
    per_slot: float

    def of(self, rate: float) -> float:
        """Misses a second that an adapter with ``rate`` causes there: its own, and by the room that it takes."""
        absent = exp(-rate * self.time_s)
        return rate * absent + self.per_slot * (1.0 - absent)


def misses_per_s(rates: Collection[float], slots: int) -> float:
    """Swaps a second of a box with so many LoRA slots, where adapters are asked for at ``rates`` a second."""
    held = [rate for rate in rates if rate > 0.0]
    if len(held) <= slots:
        return 0.0
    time_s = _characteristic_time(held, slots)
    return sum([rate * exp(-rate * time_s) for rate in held])


def pressure(rates: Collection[float], slots: int) -> Pressure:
    """What a change would cost or save there."""
    held = [rate for rate in rates if rate > 0.0]
    if len(held) < slots:
        return Pressure(inf, 0.0) if held else Pressure(0.0, 0.0)
    # Just full, it has no misses yet, but the next adapter would not be free.
    time_s = _characteristic_time(held, min(float(slots), len(held) - 0.5))
    misses = [rate * exp(-rate * time_s) for rate in held]
    total = sum(misses)
    if total <= 0.0:
        return Pressure(time_s, 0.0)
    return Pressure(time_s, sum([rate * missed for rate, missed in zip(held, misses, strict=True)]) / total)


def _characteristic_time(rates: list[float], slots: float) -> float:
    """By Newton's method from below, from where it nears the root of a concave function without passing it."""
    time_s = slots / sum(rates)
    for _ in range(_MOST_ROUNDS):
        absent = [exp(-rate * time_s) for rate in rates]
        short = slots - len(rates) + sum(absent)
        slope = sum([rate * one for rate, one in zip(rates, absent, strict=True)])
        if slope <= 0.0 or short <= _PRECISION:
            break
        time_s += short / slope
    return time_s
