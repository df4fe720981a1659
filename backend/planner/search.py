"""The smallest number that is enough, in few looks. Pure."""

from __future__ import annotations

from collections.abc import Callable


def smallest(enough: Callable[[int], bool], *, first: int = 1, most: int) -> int | None:
    """The smallest number from 1 to ``most`` that is ``enough``; None if ``most`` is not.

    More is taken to be at least as good, as is so with boxes but for chance. ``first``: where to begin to look; from
    there the steps double until a number is on each side, and then halve.
    """
    low, number, step = 0, min(first, most), 1
    while not enough(number):
        if number >= most:
            return None
        low, number = number, min(number + step, most)
        step *= 2
    if low == 0:
        # The first guess was enough: what is below it is not known.
        step = 1
        while number > 1 and enough(below := max(1, number - step)):
            number, step = below, step * 2
        low = 0 if number == 1 else max(1, number - step)
    high = number
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
