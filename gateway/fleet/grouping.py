"""Which adapters share a box, and the changes of that which lower the predicted swaps: pure.

An even mix of hot and cold adapters is the worst of all: the cold ones push the hot ones out of their slots on every
box. Where hot ones live together they stay in theirs, and the swaps of all others are on boxes that get fewer requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from gateway.fleet.lru_misses import Pressure, misses_per_s, pressure

TRIALS = 6
"""Changes of one pair of boxes whose effect is computed exactly, the most promising ones to the first order."""

SKIPPED = 6
CROWDS = (1.0, 1.25, 1.5, 2.0, 8.0)
"""How two boxes may be divided anew: without up to so many of the hottest adapters, which may be too big for company,
and with so many times as many adapters as slots."""

_SLACK = 1e-9
"""Of a load, for what sums of floating-point numbers do not keep."""


@dataclass(slots=True, eq=False)
class Group:
    """The adapters of one box. ``shares``: requests a second that each sends there; ``misses``: swaps a second."""

    box: str
    slots: int
    shares: dict[str, float] = field(default_factory=dict)
    load: float = 0.0
    misses: float = 0.0
    _pressure: Pressure | None = None

    def put(self, adapter: str, share: float) -> None:
        """``adapter`` lives here; ``assess`` is due."""
        self.shares[adapter] = share
        self._changed()

    def take(self, adapter: str) -> float:
        """``adapter`` leaves; its share. ``assess`` is due."""
        share = self.shares.pop(adapter)
        self._changed()
        return share

    def assess(self) -> None:
        """Predict the swaps anew."""
        self.misses = misses_per_s(self.shares.values(), self.slots)

    @property
    def pressure(self) -> Pressure:
        """What a change would cost or save here."""
        if self._pressure is None:
            self._pressure = pressure(self.shares.values(), self.slots)
        return self._pressure

    def _changed(self) -> None:
        # Not by difference: the error of many small ones would add up.
        self.load = sum(self.shares.values())
        self._pressure = None


@dataclass(frozen=True, slots=True)
class Change:
    """``there`` go from the first box to the second, ``back`` the other way. ``gain``: swaps a second that this saves,
    as predicted."""

    there: tuple[str, ...]
    back: tuple[str, ...]
    gain: float

    @property
    def moved(self) -> int:
        """How many adapters get another home."""
        return len(self.there) + len(self.back)


def best_change(first: Group, second: Group, *, bound: float, price: float) -> Change | None:
    """The best move or exchange between two boxes after which neither has a load above ``bound``; None: none helps.

    ``price``: the swaps a second that a change has to save for each adapter that it moves.
    """
    ours = _candidates(first, second)
    theirs = _candidates(second, first)
    load, other = first.load, second.load
    most = bound + _SLACK * bound
    found: list[tuple[float, str | None, str | None]] = []
    for there, share, score in ours:
        for back, returned, back_score in theirs:
            moved = share - returned
            if load - moved <= most and other + moved <= most and score + back_score < 0.0:
                found.append((score + back_score, there, back))
    found.sort(key=_by_score)
    best: Change | None = None
    for _, there, back in found[:TRIALS]:
        change = _change(first, second, _only(there), _only(back))
        best = _better(change, best, price)
    return best


def best_regrouping(first: Group, second: Group, *, bound: float, price: float) -> Change | None:
    """The best of some divisions of all adapters of two boxes into hot and cold ones; None: none helps.

    Steps that each save something do not lead out of an even mix: one hot adapter among cold ones, or a cold one among
    hot ones, is no better off.
    """
    fixed = first.shares.keys() & second.shares.keys()
    shares = {name: share for group in (first, second) for name, share in group.shares.items() if name not in fixed}
    names = sorted(shares, key=lambda name: (-shares[name], name))
    total = sum(shares.values())
    room, other_room = (bound - sum(group.shares[name] for name in fixed) for group in (first, second))
    best: Change | None = None
    tried: set[frozenset[str]] = set()
    for hot_is_first in (True, False):
        slots = (first if hot_is_first else second).slots
        for skipped in range(min(SKIPPED, len(names))):
            for crowd in CROWDS:
                hot = _hottest(names[skipped:], shares, room if hot_is_first else other_room, int(slots * crowd))
                ours = hot if hot_is_first else frozenset(names) - hot
                if ours in tried:
                    continue
                tried.add(ours)
                load = sum(shares[name] for name in ours)
                if load <= room and total - load <= other_room:
                    there = tuple(name for name in first.shares if name not in fixed and name not in ours)
                    back = tuple(name for name in second.shares if name not in fixed and name in ours)
                    best = _better(_change(first, second, there, back), best, price)
    return best


def _better(change: Change, best: Change | None, price: float) -> Change | None:
    worth = change.gain - price * change.moved
    return change if worth > (best.gain - price * best.moved if best is not None else 0.0) else best


def apply(change: Change, first: Group, second: Group) -> None:
    """Make ``change``."""
    there = {name: first.take(name) for name in change.there}
    for name in change.back:
        first.put(name, second.take(name))
    for name, share in there.items():
        second.put(name, share)
    first.assess()
    second.assess()


def _hottest(names: Sequence[str], shares: Mapping[str, float], room: float, most: int) -> frozenset[str]:
    """The first ``most`` of ``names`` that fit into ``room``."""
    found: list[str] = []
    for name in names:
        if len(found) >= most:
            break
        if shares[name] <= room:
            room -= shares[name]
            found.append(name)
    return frozenset(found)


def _change(first: Group, second: Group, there: tuple[str, ...], back: tuple[str, ...]) -> Change:
    ours = [share for name, share in first.shares.items() if name not in there]
    theirs = [share for name, share in second.shares.items() if name not in back]
    ours += [second.shares[name] for name in back]
    theirs += [first.shares[name] for name in there]
    after = misses_per_s(ours, first.slots) + misses_per_s(theirs, second.slots)
    return Change(there, back, first.misses + second.misses - after)


def _only(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _candidates(source: Group, target: Group) -> Sequence[tuple[str | None, float, float]]:
    """What may leave ``source`` for ``target``, with its share and, to the first order, what that adds in misses. The
    first order is a sum over those who move, so that all pairs of them can be looked at."""
    leaving, coming = source.pressure, target.pressure
    found: list[tuple[str | None, float, float]] = [(None, 0.0, 0.0)]
    for name, share in source.shares.items():
        # A hot adapter has several homes, which are different boxes.
        if name not in target.shares:
            found.append((name, share, _cost(coming, share) - _cost(leaving, share)))
    return found


def _cost(pressure: Pressure, share: float) -> float:
    return 0.0 if pressure.time_s == inf or share <= 0.0 else pressure.of(share)


def _by_score(found: tuple[float, str | None, str | None]) -> float:
    return found[0]
