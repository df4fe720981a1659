"""Medians with their spread, of single measurements in seconds, as JSON keeps them in milliseconds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.loadtest.statistics import quantile


def spread_ms(values_s: Sequence[float]) -> dict[str, Any]:
    """How many, and p10, p50, p90. Raises ValueError where there is none."""
    if not values_s:
        raise ValueError("nothing was measured")
    ordered = sorted(value * 1000 for value in values_s)
    found = {name: round(quantile(ordered, q), 3) for name, q in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))}
    return {"count": len(ordered), **found}


def added_ms(with_s: Sequence[float], without_s: Sequence[float]) -> dict[str, Any]:
    """What the first takes beyond the second: the difference of the medians, as ``p50``, and both of them.

    ``p10`` and ``p90`` are those of the differences pair by pair: the two were measured in turns.
    """
    pairs = spread_ms([a - b for a, b in zip(with_s, without_s, strict=True)])
    first, second = spread_ms(with_s), spread_ms(without_s)
    return {**pairs, "p50": round(first["p50"] - second["p50"], 3), "with": first, "without": second}
