"""Which of an adapter's boxes a request is sent to first: pure, from the homes and what is in flight now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

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

    ROOM = auto()
    """There is room, and it belongs there."""
    ASTRAY = auto()
    """There is room, at the price of a swap that its home would not have needed."""
    FULL = auto()
    """It would wait there, in vLLM's queue, where nobody can take it out of without giving up its place."""


def fit(box: Loaded, adapter: str, *, home_is_full: bool) -> Fit:
    """``home_is_full``: a box that this request prefers will have room sooner or later, and saves it a swap."""
    load = box.load
    if not home_is_full or adapter in load.slots:
        return Fit.ROOM if load.has_room(adapter) else Fit.FULL
    return Fit.ASTRAY if load.has_room(adapter) else Fit.FULL


class Detour(Enum):
    """Why a box that is no home of the adapter's goes first."""

    RESIDENT = auto()
    """It has the adapter in a slot, which the home has not, and is less busy."""


@dataclass(frozen=True, slots=True)
class Route(Generic[B]):
    """What :func:`route` says, for people. ``boxes``: in the order in which to ask them; ``homes``: those of the
    adapter, the one first that is asked of them; ``measured``: whether they follow from measured rates."""

    boxes: Sequence[B]
    homes: Sequence[B]
    measured: bool
    detour: Detour | None = None


def explained(boxes: Sequence[B], homes: int, adapter: str) -> Route[B]:
    """The same as :func:`route`, with why. ``homes`` may be 0 here: the adapter was not placed."""
    if not homes:
        return Route(boxes, boxes[:1], measured=False)
    ordered = _least_busy_first(boxes, homes)
    found = _detour(ordered, homes, adapter)
    if found is None:
        return Route(ordered, ordered[:homes], measured=True)
    return Route(_first(found[0], ordered), ordered[:homes], measured=True, detour=found[1])


def route(boxes: Sequence[B], homes: int, adapter: str) -> Sequence[B]:
    """``boxes``, of which the first ``homes`` are those of ``adapter``, in the order of preference now.

    Of several homes the least busy one is first. Another box goes before the homes where it has the adapter in a slot,
    which the home has not, and is less busy: so nothing is swapped.
    """
    ordered = boxes if homes == 1 else _least_busy_first(boxes, homes)
    home = ordered[0].load
    if adapter in home.slots:
        return ordered
    found = _detour(ordered, homes, adapter)
    return ordered if found is None else _first(found[0], ordered)


def _least_busy_first(boxes: Sequence[B], homes: int) -> Sequence[B]:
    if homes == 2:
        return [boxes[1], boxes[0], *boxes[2:]] if _busy(boxes[1]) < _busy(boxes[0]) else boxes
    return [*sorted(boxes[:homes], key=_busy), *boxes[homes:]] if homes > 2 else boxes


def _detour(ordered: Sequence[B], homes: int, adapter: str) -> tuple[B, Detour] | None:
    """The box that goes before the first of the homes, and why; None where that one has the adapter and room for it."""
    home = ordered[0]
    others = ordered[homes : homes + OTHERS]
    if adapter not in home.load.slots:
        for box in others:
            if adapter in box.load.slots and box.load.has_room(adapter) and _busy(box) < _busy(home):
                return box, Detour.RESIDENT
    return None


def _busy(box: Loaded) -> tuple[int, int]:
    # Who is silent is being read or waits, and that is what the next one waits for; who speaks costs it little.
    attempts = box.load.attempts
    return attempts.silent, attempts.total


def _first(first: B, boxes: Sequence[B]) -> list[B]:
    return [first, *(box for box in boxes if box is not first)]
