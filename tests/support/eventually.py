"""Waiting for a condition, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tests.support.lag import Until

Value = TypeVar("Value")

AMPLE_S = 30.0
"""Where how soon is not what is tested: beside ten other processes on two cores all takes ten times as long."""


async def eventually(
    condition: Callable[[], Value | None], *, within_s: float = AMPLE_S, every_s: float = 0.01
) -> Value:
    """The first true value that ``condition`` gives. Raises AssertionError when there is none in time, without what the
    processes of the test waited for a CPU meanwhile.
    """
    until = Until(within_s)
    while not (value := condition()):
        assert not until.over, (
            f"not within {within_s} s (and {until.lag_s:.1f} s without a CPU); the last value was {value!r}"
        )
        await asyncio.sleep(every_s)
    return value
