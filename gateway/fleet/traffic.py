"""How often each adapter is asked for: pure, time is handed in. On the request path it is one addition."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, expm1

TIME_CONSTANT_S = 300.0
"""Of the exponential weights. At 600 requests a minute an adapter with 1 % of them is then known to about 20 %
(30 requests); a customer whose day begins is seen within some minutes."""

_FORGOTTEN = 0.05
"""Requests: so little is left of an adapter's that was last asked for some 15 minutes ago."""


class Traffic:
    """Exponentially weighted rates. What was counted between two calls of ``rates`` weighs as if it had come in the
    middle between them."""

    __slots__ = ("_at_s", "_counts", "_since_s", "_weights", "time_constant_s")

    def __init__(self, now: float, *, time_constant_s: float = TIME_CONSTANT_S) -> None:
        self.time_constant_s = time_constant_s
        self._since_s = self._at_s = now
        self._counts: dict[str, int] = {}
        self._weights: dict[str, float] = {}

    def seen(self, adapter: str) -> None:
        """A request for ``adapter`` came."""
        counts = self._counts
        counts[adapter] = counts.get(adapter, 0) + 1

    def take(self) -> dict[str, int]:
        """The requests by adapter that nobody was told of, which are then forgotten: somebody else makes rates of
        them."""
        counts, self._counts = self._counts, {}
        return counts

    def add(self, counts: Mapping[str, int]) -> None:
        """Requests that came elsewhere."""
        for adapter, count in counts.items():
            self._counts[adapter] = self._counts.get(adapter, 0) + count

    def rates(self, now: float) -> dict[str, float]:
        """Requests a second by adapter, each above 0; those that were forgotten are left out."""
        elapsed_s = max(0.0, now - self._at_s)
        self._at_s = max(now, self._at_s)
        kept = exp(-elapsed_s / self.time_constant_s)
        fresh = exp(-elapsed_s / 2 / self.time_constant_s)
        weights = {name: weight * kept for name, weight in self._weights.items() if weight * kept > _FORGOTTEN}
        for name, count in self._counts.items():
            weights[name] = weights.get(name, 0.0) + count * fresh
        self._counts = {}
        self._weights = weights
        # In the first minutes there is less behind it than there will be.
        seen_s = -self.time_constant_s * expm1(-(self._at_s - self._since_s) / self.time_constant_s)
        return {name: weight / seen_s for name, weight in weights.items()} if seen_s > 0.0 else {}

    @property
    def remembered(self) -> float:
        """The requests behind the last ``rates``, those of long ago counting less."""
        return sum(self._weights.values())
