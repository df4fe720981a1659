"""Waiting for a condition, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


async def eventually(condition: Callable[[], Value | None], *, within_s: float = 5.0, every_s: float = 0.01) -> Value:
    """The first true value that ``condition`` gives. Raises AssertionError when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s; the last value was {value!r}"
        await asyncio.sleep(every_s)
    return value
