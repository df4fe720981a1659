"""A degradation by order, as the commands show it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from gateway.observe.actor import Actor


def order_line(order: dict[str, Any]) -> str:
    """``acme is answered by the fallback until 14:32:05 UTC (9 min left), by ops (ann): adapter v3 talks nonsense``"""
    whom = "all customers are" if order["customer"] is None else f"{order['customer']} is"
    until = dt.datetime.fromtimestamp(order["until"], dt.UTC).strftime("%H:%M:%S UTC")
    left_s = order["left_s"]
    left = (
        f"{left_s:.0f} s" if left_s < 120 else f"{left_s / 60:.0f} min" if left_s < 7200 else f"{left_s / 3600:.1f} h"
    )
    by = f", by {line}" if (line := Actor(order["by"], order["user"]).line) else ""
    why = f": {order['reason']}" if order["reason"] else ""
    return f"{whom} answered by the fallback until {until} ({left} left){by}{why}"
