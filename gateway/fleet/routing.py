"""Which of an adapter's boxes a request is sent to first: pure, from the homes and what is in flight now."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol, TypeVar

from gateway.fleet.box_load import BoxLoad

OTHERS = 2
"""So many boxes behind the homes are looked at. With fifty boxes one of the first two has room nearly always, and an
adapter that goes astray stays on the same few."""


class Loaded(Protocol):
    """What is to be known of a box."""

    @property
    def load(self) -> BoxLoad:
        """What is in flight there, and which adapters are believed to hold its slots."""


B = TypeVar("B", bound=Loaded)


class Fit(Enum):
    """How a request fits into a box now."""

    ROOM = 1
    """There is room, and it belongs there."""
    ASTRAY = 2
    """There is room, at the price of a swap that its home would not have needed."""
    FULL = 3
    """It would wait there, in vLLM's queue, where nobody can take it out of without giving up its place."""


def fit(box: Loaded, adapter: str, *, home_is_full: bool) -> Fit:
    """``home_is_full``: a box that this request prefers will have room sooner or later, and saves it a swap."""
    load = box.load
    if not home_is_full or adapter in load.slots:
        return Fit.ROOM if load.has_room(adapter) else Fit.FULL
    return Fit.ASTRAY if load.has_room(adapter) else Fit.FULL


def route(boxes: Sequence[B], homes: int, adapter: str) -> Sequence[B]:
    """``boxes``, of which the first ``homes`` are those of ``adapter``, in the order of preference now.

    Of several homes the least busy one is first. Another box goes before the homes where it has the adapter in a slot,
    which the home has not, and is less busy: so nothing is swapped.
    """
    ordered = boxes
    if homes == 2 and _busy(boxes[1]) < _busy(boxes[0]):
        ordered = [boxes[1], boxes[0], *boxes[2:]]
    elif homes > 2:
        ordered = [*sorted(boxes[:homes], key=_busy), *boxes[homes:]]
    home = ordered[0]
    others = ordered[homes : homes + OTHERS]
    if adapter not in home.load.slots:
        for box in others:
            if adapter in box.load.slots and box.load.has_room(adapter) and _busy(box) < _busy(home):
                return _first(box, ordered)
    return ordered


def _busy(box: Loaded) -> tuple[int, int]:
    # Who is silent is being read or waits, and that is what the next one waits for; who speaks costs it little.
    attempts = box.load.attempts
    return attempts.silent, attempts.total


def _first(first: B, boxes: Sequence[B]) -> list[B]:
    return [first, *(box for box in boxes if box is not first)]
