"""The one place that reads the wall clock.

Everything that measures a duration uses the event loop's monotonic clock, so that a jump of the wall clock moves
nothing; wall time is for what people and files see: ``created`` fields, log lines, the expiry day of a key.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from functools import lru_cache

Clock = Callable[[], float]
"""Monotonic seconds: the event loop's ``time``. Handed on within a request: to ask for the running loop takes a system
call (getpid, before Python 3.12), and a relay would make five of them."""


def wall_s() -> float:
    """Unix time in seconds."""
    return time.time()  # noqa: TID251


def today_utc() -> dt.date:
    """The current day, UTC."""
    return _day(int(wall_s() // _DAY_S))


_DAY_S = 86_400
"""Seconds of each day in Unix time, which leaves leap seconds out."""


@lru_cache(maxsize=2)
def _day(number: int) -> dt.date:
    """Asked for with every request, as a key may expire."""
    return dt.date(1970, 1, 1) + dt.timedelta(days=number)
