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

WORTH_A_SWAP = 2
"""So many more streams may be silent at a box that has the adapter in a slot than at its home, which has not."""

LESS_BUSY = 2
"""So many fewer attempts have to be in flight at another box for a swap to be made there: an adapter that is at home
stays together with those that are asked for as rarely. 1 costs more swaps (`python -m bench.placement`)."""


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


@dataclass(frozen=True, slots=True)
class Route(Generic[B]):
    """What :func:`route` says, for people. ``boxes``: in the order in which to ask them; ``homes``: those of the
    adapter, the one first that is asked of them; ``measured``: whether they follow from measured rates."""

    boxes: Sequence[B]
    homes: Sequence[B]
    measured: bool


def explained(boxes: Sequence[B], homes: int, adapter: str) -> Route[B]:
    """The same as :func:`route`, with the homes. ``homes`` may be 0 here: the adapter was not placed."""
    if not homes:
        return Route(boxes, boxes[:1], measured=False)
    ordered = _least_busy_first(boxes, homes)
    return Route(_best_first(ordered, homes, adapter), ordered[:homes], measured=True)


def route(boxes: Sequence[B], homes: int, adapter: str) -> Sequence[B]:
    """``boxes``, of which the first ``homes`` are those of ``adapter``, in the order of preference now.

    Of several homes the least busy one is first. Another box goes before the homes where it has the adapter in a slot,
    which the home has not, or has while others are silent there: so nothing is swapped. Where no box has it, a swap
    is due anyway, and goes where it costs less: to a free slot, or past those who are being read at the home.
    """
    return _best_first(boxes if homes == 1 else _least_busy_first(boxes, homes), homes, adapter)


def _least_busy_first(boxes: Sequence[B], homes: int) -> Sequence[B]:
    if homes == 2:
        return [boxes[1], boxes[0], *boxes[2:]] if _busy(boxes[1]) < _busy(boxes[0]) else boxes
    return [*sorted(boxes[:homes], key=_busy), *boxes[homes:]] if homes > 2 else boxes


def _best_first(ordered: Sequence[B], homes: int, adapter: str) -> Sequence[B]:
    home = ordered[0]
    load = home.load
    if adapter in load.slots and not load.attempts.silent:
        return ordered
    others = ordered[1 : homes + OTHERS]
    resident = [
        box
        for box in (home, *others)
        if adapter in box.load.slots and _worth_going(box, home) and box.load.has_room(adapter)
    ]
    best = home
    if resident:
        best = min(resident, key=_busy)
    elif load.has_room(adapter):
        best = next((box for box in others if _swaps_cheaper(box, home) and box.load.has_room(adapter)), home)
    return ordered if best is home else [best, *(box for box in ordered if box is not best)]


def _worth_going(box: Loaded, home: Loaded) -> bool:
    """Whether an adapter that ``box`` has in a slot is better sent there.

    Where the home has a slot that is free, as after a restart, nobody loses one to it: it comes home unless that is
    busier.
    """
    there, here = box.load.attempts, home.load.attempts
    return there.silent <= here.silent + WORTH_A_SWAP and (home.load.slots.full or there.total < here.total)


def _swaps_cheaper(box: Loaded, home: Loaded) -> bool:
    """Whether an adapter that neither has in a slot is better brought into one of ``box``."""
    if home.load.slots.full and not box.load.slots.full:
        return True
    there, here = box.load.attempts, home.load.attempts
    return there.silent < here.silent and there.total + LESS_BUSY <= here.total


def _busy(box: Loaded) -> tuple[int, int]:
    # Who is silent is being read or waits, and that is what the next one waits for; who speaks costs it little.
    attempts = box.load.attempts
    return attempts.silent, attempts.total
