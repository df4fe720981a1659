"""How good a customer's answers are on its eval set: by its own adapter, and by its fallback."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

PATHS: Final = ("own", "degraded")


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """``right``: share of the prompts, with its 95 % interval ``low`` to ``high``. ``sets``: by which eval sets (the
    beginning of their digest). ``at``: Unix time of the publication; who did, the audit
    log knows.
    """

    customer: str
    path: Literal["own", "degraded"]
    right: float
    low: float
    high: float
    prompts: int
    sets: str
    at: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Whose score it is, and on which path."""
        return self.customer, self.path


class ScoreBook:
    """The latest score of each customer and path."""

    def __init__(self) -> None:
        self._by_customer: dict[str, dict[str, Score]] = {}

    def replace(self, scores: Iterable[Score]) -> None:
        """These are all that there are."""
        self._by_customer = {}
        self.add(scores)

    def add(self, scores: Iterable[Score]) -> None:
        """These too."""
        for score in scores:
            self._by_customer.setdefault(score.customer, {})[score.path] = score

    def of(self, customer: str) -> dict[str, Any] | None:
        """``own`` and ``degraded`` of a customer, each None where it was never scored; None where neither was."""
        found = self._by_customer.get(customer)
        if found is None:
            return None
        return {path: None if (one := found.get(path)) is None else _document(one) for path in PATHS}

    def worst(self, customers: Iterable[str], most: int) -> list[dict[str, Any]]:
        """The ``most`` of ``customers`` that lose most by their fallback, with what they lose, in points; those where
        one path was never scored come last."""
        lost = {name: self._lost(name) for name in customers if name in self._by_customer}
        # Who is not known by both is behind all others.
        ranked = sorted(lost.items(), key=lambda one: (math.inf if one[1] is None else -one[1], one[0]))
        return [{"customer": name, **(self.of(name) or {}), "lost_points": points} for name, points in ranked[:most]]

    def _lost(self, customer: str) -> float | None:
        """In percentage points, where both are known."""
        found = self._by_customer[customer]
        own, degraded = found.get("own"), found.get("degraded")
        return None if own is None or degraded is None else round(100 * (own.right - degraded.right), 2)

    def all(self) -> list[Score]:
        """Every one."""
        return [score for found in self._by_customer.values() for score in found.values()]


def _document(score: Score) -> dict[str, Any]:
    fields = msgspec.to_builtins(score)
    return {name: fields[name] for name in ("right", "low", "high", "prompts", "sets", "at")}
