"""Which of an adapter's boxes a request is sent to first: pure, from the homes and what is in flight now."""

from __future__ import annotations

from collections.abc import Sequence
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


def route(boxes: Sequence[B], homes: int, adapter: str) -> Sequence[B]:
    """``boxes``, of which the first ``homes`` are those of ``adapter``, in the order in which to ask them now.

    Of several homes the least busy one is first. Another box goes before the homes in two cases. It has the adapter in
    a slot, which the home has not, and is less busy: so nothing is swapped. Or as many adapters are in flight at the
    home as it has slots, so that vLLM would let the request wait until one of them has nothing to do, however long that
    takes, and there are two slots free elsewhere.
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
    if not home.load.has_room(adapter):
        for box in (*ordered[1:homes], *others):
            if _has_two_free(box, adapter):
                return _first(box, ordered)
    return ordered


def _busy(box: Loaded) -> tuple[int, int]:
    # Who is silent is being read or waits, and that is what the next one waits for; who speaks costs it little.
    attempts = box.load.attempts
    return attempts.silent, attempts.total


def _has_two_free(box: Loaded, adapter: str) -> bool:
    load = box.load
    return load.attempts.of(adapter) > 0 or load.attempts.distinct < load.slots.slots - 1


def _first(first: B, boxes: Sequence[B]) -> list[B]:
    return [first, *(box for box in boxes if box is not first)]
