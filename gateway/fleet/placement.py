"""Which box is an adapter's home, from measured rates: pure; time, rates and randomness are handed in.

Homes start as those of rendezvous hashing with bounded loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam, *Consistent
Hashing with Bounded Loads*, 2016): an adapter lives at the first box of its order whose load stays within 1 + ε of the
mean. From there a few changes at a time are made that lower the swaps of all boxes as Che's approximation predicts
them (``lru_misses``), each only if it pays for itself, so that homes are stable while the measured rates waver.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from math import ceil

from gateway.fleet.grouping import Group, apply, best_change, best_regrouping
from gateway.fleet.rendezvous import rendezvous

EPSILON = 0.1
"""A box may have this much more than the mean load. More saves hardly any swaps (`python -m bench.placement`), and
whoever lives on the busiest box waits longer."""

AIM = 0.9
"""Share of ε that a change of choice may use. The rest is for rates that waver, so that none is made that the bound
would take back."""

PAYBACK_S = 300.0
SWAPS_A_MOVE = 3.0
"""A change has to save, within the first, as many swaps as the second for each adapter that it moves: its load at the
new home, that of whoever loses a slot to it, and the prefix cache that it leaves."""

HOT = 0.4
"""Of a box's fair share: an adapter with more has two homes, and whichever is less busy answers. It keeps its slots on
both, so that this costs one slot, and evens out what a bound on mean loads cannot: chance."""

KEEP_SECOND_HOME = 0.8
"""It gives a home up when it has less than this share of what it took to get it."""

LEAST_MOVES = 8
MOVES_SHARE = 0.125
"""Of all adapters: when so many, or the number above, were moved for fewer swaps, a rebalance makes no more changes.
Each move costs a swap."""

PAIRS_LOOKED_AT = 100
"""Pairs of boxes in one rebalance; all of them with up to 14 boxes. Each costs about a millisecond."""

SETTLED_A_STEP = 20
"""Adapters without a home; of fifty boxes each takes some 40 µs to order."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The homes of all adapters with a measured rate. ``swaps_per_s``: of all boxes together, as predicted; ``loads``:
    requests a second by box; ``moved``: adapters whose homes changed for fewer swaps in the rebalance."""

    boxes: tuple[str, ...] = ()
    homes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    loads: Mapping[str, float] = field(default_factory=dict)
    swaps_per_s: float = 0.0
    moved: int = 0

    def order(self, adapter: str) -> tuple[str, ...]:
        """All boxes: the home or homes of ``adapter``, then the others as rendezvous hashing has them."""
        order = rendezvous(adapter, self.boxes)
        homes = self.homes.get(adapter, ())
        return homes + tuple(box for box in order if box not in homes) if homes else order


def place(
    rates: Mapping[str, float],
    slots: Mapping[str, int],
    before: Placement | None = None,
    *,
    uniform: Callable[[], float],
    epsilon: float = EPSILON,
) -> Placement:
    """The homes of all adapters in ``rates`` (requests a second) on the boxes in ``slots`` (LoRA slots by name).

    Homes ``before`` are kept but for what the bound on loads, boxes that left, and changes that pay for themselves
    ask for. ``uniform`` gives numbers from 0 to 1, which choose the pairs of boxes to be looked at where there are
    many.
    """
    steps = rebalance(rates, slots, before, uniform=uniform, epsilon=epsilon)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            placement: Placement = end.value
            return placement


def rebalance(
    rates: Mapping[str, float],
    slots: Mapping[str, int],
    before: Placement | None = None,
    *,
    uniform: Callable[[], float],
    epsilon: float = EPSILON,
) -> Generator[None, None, Placement]:
    """The same in steps of about a millisecond, for an event loop."""
    if not slots:
        return Placement()
    rates = dict(sorted(rates.items()))
    groups = {box: Group(box, count) for box, count in slots.items()}
    total = sum(rates.values())
    fair = total / len(groups)
    bound = fair * (1.0 + epsilon)
    kept = before.homes if before is not None else {}
    yield from _settle(rates, groups, kept, fair, bound)
    yield
    _shed(groups, fair, bound)
    for group in groups.values():
        group.assess()
    yield
    most = max(LEAST_MOVES, int(MOVES_SHARE * len(rates)))
    moved = yield from _improve(groups, fair * (1.0 + AIM * epsilon), most, uniform)
    homes: dict[str, list[str]] = {}
    for box, group in groups.items():
        for adapter in group.shares:
            homes.setdefault(adapter, []).append(box)
    return Placement(
        boxes=tuple(slots),
        homes={adapter: _in_order(adapter, boxes) for adapter, boxes in homes.items()},
        loads={box: group.load for box, group in groups.items()},
        swaps_per_s=sum(group.misses for group in groups.values()),
        moved=moved,
    )


def _in_order(adapter: str, boxes: list[str]) -> tuple[str, ...]:
    return tuple(boxes) if len(boxes) == 1 else rendezvous(adapter, boxes)


def _settle(
    rates: Mapping[str, float],
    groups: Mapping[str, Group],
    kept: Mapping[str, tuple[str, ...]],
    fair: float,
    bound: float,
) -> Generator[None, None, None]:
    """Who has a home keeps it; then all others, those with most requests first, as there is still room for them."""
    homeless: list[tuple[float, str, int]] = []
    for adapter, rate in rates.items():
        homes = [box for box in kept.get(adapter, ()) if box in groups]
        count = _homes_of(rate, fair, len(homes), len(groups))
        for box in homes[:count]:
            groups[box].put(adapter, rate / count)
        homeless += [(rate / count, adapter, count)] * (count - len(homes[:count]))
    homeless.sort(key=lambda one: (-one[0], one[1]))
    for number, (share, adapter, _) in enumerate(homeless):
        if number % SETTLED_A_STEP == 0:
            yield
        free = [groups[box] for box in rendezvous(adapter, groups) if adapter not in groups[box].shares]
        home = next((group for group in free if group.load + share <= bound), None)
        (home or min(free, key=_load)).put(adapter, share)


def _homes_of(rate: float, fair: float, have: int, boxes: int) -> int:
    """How many homes: as many as it takes for none to get more than a box's fair share from one adapter, or two."""
    if fair <= 0.0:
        return 1
    wanted = _homes_for(rate / fair)
    if wanted < have:
        wanted = min(have, _homes_for(rate / fair / KEEP_SECOND_HOME))
    return min(wanted, boxes)


def _homes_for(share: float) -> int:
    return 1 if share <= HOT else max(2, ceil(share - 1e-9))


def _shed(groups: Mapping[str, Group], fair: float, bound: float) -> None:
    """Bring every load below ``bound``; where adapters are too big for that, as near as one of them is big."""
    biggest = max((share for group in groups.values() for share in group.shares.values()), default=0.0)
    limit = max(bound, fair + biggest)
    for source in sorted(groups.values(), key=lambda group: -group.load):
        while source.load > bound * (1.0 + 1e-9):
            excess = source.load - bound
            # The smallest that is enough, else the biggest: fewest adapters move.
            by_size = sorted(source.shares.items(), key=lambda one: (one[1] < excess, abs(one[1] - excess), one[0]))
            if not _evict(source, by_size, groups, bound) and (
                source.load <= limit * (1.0 + 1e-9) or not _evict(source, by_size, groups, limit)
            ):
                break


def _evict(source: Group, by_size: list[tuple[str, float]], groups: Mapping[str, Group], bound: float) -> bool:
    for adapter, share in by_size:
        if share <= 0.0:
            continue
        for box in rendezvous(adapter, groups):
            target = groups[box]
            if adapter not in target.shares and target.load + share <= min(bound, source.load - share * 1e-6):
                target.put(adapter, source.take(adapter))
                return True
    return False


def _improve(
    groups: Mapping[str, Group], bound: float, most: int, uniform: Callable[[], float]
) -> Generator[None, None, int]:
    pairs = list(combinations(groups.values(), 2))
    if len(pairs) > PAIRS_LOOKED_AT:
        pairs = [pairs[min(len(pairs) - 1, int(uniform() * len(pairs)))] for _ in range(PAIRS_LOOKED_AT)]
    moved = 0
    for first, second in pairs:
        while moved < most:
            yield
            # Where a box is above the bound already, nothing may make it worse.
            most_load = max(bound, first.load, second.load)
            change = best_change(first, second, bound=most_load, price=SWAPS_A_MOVE / PAYBACK_S)
            if change is None:
                yield
                change = best_regrouping(first, second, bound=most_load, price=SWAPS_A_MOVE / PAYBACK_S)
            if change is None:
                break
            apply(change, first, second)
            moved += change.moved
    return moved


def _load(group: Group) -> float:
    return group.load
