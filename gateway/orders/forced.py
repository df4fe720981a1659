"""Who is degraded by order, as the request path asks it: pure look-ups, and none at all where there is no order."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.orders.order import ALL

NEVER = float("-inf")


class Forced:
    """``ends``: by target, the monotonic time in seconds at which its order ends. Replaced whole."""

    __slots__ = ("ends",)

    def __init__(self) -> None:
        self.ends: Mapping[str, float] = {}

    def holds(self, customer: str, now: float) -> bool:
        """Whether ``customer`` is to be answered by its fallback at ``now``."""
        ends = self.ends
        if not ends:
            return False
        return now < ends.get(customer, NEVER) or now < ends.get(ALL, NEVER)
