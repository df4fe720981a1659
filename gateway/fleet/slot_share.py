"""How many of a box's LoRA slots one of several gateways may count on: pure.

A box swaps adapters for all gateways that ask it. Did each of two count on all slots, they would send it twice as many
distinct adapters as it has slots for, and requests would wait for swaps that the other one's undo.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replicas:
    """``alive``: gateways that ask the same boxes, this one counted; ``rank``: its place among them, from 0."""

    alive: int = 1
    rank: int = 0

    def slots(self, max_loras: int) -> int:
        """Of ``max_loras`` slots: an equal share, the remainder to those of the lowest ranks; at least one."""
        equal, left = divmod(max_loras, self.alive)
        return max(1, equal + (self.rank < left))
