"""Keeps the cycle collector from looking through thousands of customers as they are made.

Each is some ten objects, no cycle is among them, and a collection holds the interpreter: those that came while a
version of 10,000 was compiled held up requests four times, for 15 to 30 ms of CPU each.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 10_000
"""Objects. To look through fewer takes two milliseconds at most."""


@contextmanager
def uncollected() -> Iterator[None]:
    """For as long as much is made that will stay, in whichever thread: where it was much, it is not looked at later
    either. What goes is let go of all the same.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] >= MANY:
            gc.freeze()
        if enabled:
            gc.enable()
