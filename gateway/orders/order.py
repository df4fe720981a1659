"""An order: one customer, or all of them, answered by the fallback until a time, because somebody said so.

Times are the store's: of two gateways' clocks neither is right. Which of two orders for one target holds is decided by
:func:`newer`, the same on every gateway and in whatever sequence they hear of them.
"""

from __future__ import annotations

import msgspec

ALL = "*"
"""The target that is every customer; no customer can have this name."""

LONGEST_S = 86_400.0
"""A day: who wants a customer on the fallback for longer changes the policy."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """``at_ms``, ``until_ms``: milliseconds of the store's clock. ``over``: it was taken back before its time.

    ``by``, ``user``: who gave it; ``ended_by``, ``ended_user``: who took it back, as an ``Actor`` says it.
    """

    id: str
    target: str
    at_ms: int
    until_ms: int
    reason: str = ""
    by: str = ""
    user: str = ""
    over: bool = False
    ended_by: str = ""
    ended_user: str = ""

    @property
    def whom(self) -> str:
        """For people."""
        return "all customers" if self.target == ALL else self.target


def newer(one: Order, other: Order) -> Order:
    """Which of two orders for the same target holds: the later one, and one that was taken back stays so."""
    if one.id == other.id:
        return one if one.over else other
    return max(one, other, key=lambda order: (order.at_ms, order.id))
