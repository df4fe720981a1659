"""Quantiles of what was measured, none of it averaged twice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of values in order, by linear interpolation between the two nearest (type 7 of Hyndman and Fan, as numpy's)."""
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of times in milliseconds; all None where nothing was measured."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of_seconds(cls, values_s: Iterable[float | None]) -> Distribution:
        """Of times in seconds; those that are None were not measured."""
        ordered = sorted(value * 1000 for value in values_s if value is not None)
        if not ordered:
            return cls(0, None, None, None, None, None)
        p50, p90, p99 = (round(quantile(ordered, share), 3) for share in (0.5, 0.9, 0.99))
        return cls(len(ordered), round(math.fsum(ordered) / len(ordered), 3), p50, p90, p99, round(ordered[-1], 3))

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in ("count", "mean", "p50", "p90", "p99", "max")}
