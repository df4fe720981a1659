"""A degradation by order, as the commands show it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from gateway.observe.actor import Actor

_MOST_NAMES = 20
"""The JSON has some more."""


def order_line(order: dict[str, Any]) -> str:
    """``acme is answered by the fallback until 14:32:05 UTC (9 min left), by ops (ann): adapter v3 talks nonsense``"""
    until = dt.datetime.fromtimestamp(order["until"], dt.UTC).strftime("%H:%M:%S UTC")
    left_s = order["left_s"]
    left = (
        f"{left_s:.0f} s" if left_s < 120 else f"{left_s / 60:.0f} min" if left_s < 7200 else f"{left_s / 3600:.1f} h"
    )
    by = f", by {line}" if (line := Actor(order["by"], order["user"]).line) else ""
    why = f": {order['reason']}" if order["reason"] else ""
    if order["customer"] is not None and order["unanswerable"]["count"]:
        return f"{order['customer']} is not degraded, {NOBODY}; the order is until {until} ({left} left){by}{why}"
    whom = whom_of(order)
    in_part = names_of(order["text_only"])
    notes = f"; in part, by a fixed text: {in_part}" if in_part else ""
    if order["customer"] is None and order["unanswerable"]["count"]:
        notes += f"; not degraded, {NOBODY}: {names_of(order['unanswerable'])}"
    return f"{whom} answered by the fallback until {until} ({left} left){by}{why}{notes}"


NOBODY = "as no step of the fallback can answer"


def whom_of(order: dict[str, Any]) -> str:
    """``all customers but 2 are``: those that somebody besides their own adapter can answer."""
    if order["customer"] is not None:
        return f"{order['customer']} is"
    count = order["unanswerable"]["count"]
    if count and count == order["of"]:
        return "no customer is"
    return f"all customers but {count} are" if count else "all customers are"


def names_of(some: dict[str, Any]) -> str:
    """``acme, globex and 12 more``"""
    names, count = some["customers"][:_MOST_NAMES], some["count"]
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return ", ".join(names) + more
