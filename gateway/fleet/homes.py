"""The homes of one fleet's adapters over time: counts requests, and places anew now and then beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.fleet.box import Box
from gateway.fleet.placement import Placement, rebalance
from gateway.fleet.rendezvous import rendezvous
from gateway.fleet.routing import Route, explained, route
from gateway.fleet.traffic import Traffic

REBALANCE_S = 5.0
"""Of rates that are means over minutes. For 1,000 adapters on 50 boxes one takes some 0.1 s, in steps of 1 to 2 ms."""

LEAST_REQUESTS = 200.0
"""Before so many, shares of the traffic are chance, and adapters stay where rendezvous hashing has them."""


@dataclass(frozen=True, slots=True)
class Inhabitant:
    """An adapter that lives on a box. ``rate``: requests a second of it there, as last measured, None before that:
    with several ``homes`` each is taken to get as many."""

    adapter: str
    rate: float | None
    homes: int


class Homes:
    """Called from the event loop's thread. ``uniform`` gives numbers from 0 to 1, ``clock`` monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float], uniform: Callable[[], float]) -> None:
        self._clock = clock
        self._uniform = uniform
        self._traffic = Traffic(clock())
        self._boxes: dict[str, Box] = {}
        self._adapters: frozenset[str] = frozenset()
        self._orders: dict[str, tuple[tuple[Box, ...], int]] = {}
        self._by_name: dict[str, tuple[str, ...]] = {}
        self.placement: Placement | None = None
        """As it was last worked out; None: all is as rendezvous hashing has it."""
        self.placed_at: float | None = None
        """When that was."""
        self.rates: Mapping[str, float] | None = None
        """Requests a second by adapter, as last measured; None before the first time."""

    def follow(self, boxes: Sequence[Box], adapters: frozenset[str] = frozenset()) -> None:
        """These are the fleet's boxes now, and the ``adapters`` that policies name.

        Who lived on a box that left goes by rendezvous until all are placed anew.
        """
        self._boxes = {box.name: box for box in boxes}
        self._adapters = adapters
        self._orders = {}
        self._by_name = {}

    def boxes_for(self, adapter: str) -> Sequence[Box]:
        """The boxes in the order in which to ask them for a request that has just come; it is counted."""
        self._traffic.seen(adapter)
        known = self._orders.get(adapter)
        if known is None:
            known = self._orders[adapter] = self._order(adapter)
        boxes, homes = known
        return route(boxes, homes, adapter) if homes else boxes

    def look(self, adapter: str) -> Route[Box]:
        """What :meth:`boxes_for` would say, and why, for one who only looks: nothing is counted or remembered."""
        return explained(*(self._orders.get(adapter) or self._order(adapter)), adapter)

    def inhabitants(self) -> dict[str, list[Inhabitant]]:
        """By box, the adapters that live there, those with most requests first."""
        found: dict[str, list[Inhabitant]] = {name: [] for name in self._boxes}
        rates = self.rates
        for adapter in self._adapters:
            homes = self._homes_of(adapter)
            rate = None if rates is None else rates.get(adapter, 0.0) / len(homes)
            for name in homes:
                found[name].append(Inhabitant(adapter, rate, len(homes)))
        for there in found.values():
            there.sort(key=lambda one: (-(one.rate or 0.0), one.adapter))
        return found

    @property
    def requests_seen(self) -> float:
        """The requests behind ``rates``, those of long ago counting less; placed is from ``LEAST_REQUESTS`` on."""
        return self._traffic.remembered

    @property
    def traffic(self) -> Traffic:
        """The requests that are counted."""
        return self._traffic

    def adopt(self, homes: Mapping[str, tuple[str, ...]]) -> None:
        """These are the homes that another process has worked out."""
        self.placement = Placement(homes=homes) if homes else None
        self._orders = {}

    async def run(self) -> None:
        """Place anew for as long as this runs."""
        while True:
            await asyncio.sleep(REBALANCE_S)
            await self.rebalance()

    async def rebalance(self) -> None:
        """Place anew, with room for others between its steps."""
        rates = self.rates = self._traffic.rates(self._clock())
        if self._traffic.remembered < LEAST_REQUESTS:
            return
        slots = {box.name: box.load.slots.slots for box in self._boxes.values() if box.spec.unavailable is None}
        steps = rebalance(rates, slots, self.placement, uniform=self._uniform)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                self.placement = end.value
                self.placed_at = self._clock()
                self._orders = {}
                return
            await asyncio.sleep(0)

    def _order(self, adapter: str) -> tuple[tuple[Box, ...], int]:
        """All boxes, and how many homes are at their head: none where the adapter was not placed."""
        there = self._placed(adapter)
        others = [name for name in rendezvous(adapter, self._boxes) if name not in there]
        return tuple(self._boxes[name] for name in (*there, *others)), len(there)

    def _placed(self, adapter: str) -> tuple[str, ...]:
        homes = self.placement.homes.get(adapter, ()) if self.placement is not None else ()
        return tuple(name for name in homes if name in self._boxes)

    def _homes_of(self, adapter: str) -> tuple[str, ...]:
        if (placed := self._placed(adapter)) or not self._boxes:
            return placed
        known = self._by_name.get(adapter)
        if known is None:
            # For fifty boxes it takes some 40 µs, so that it is worth remembering where many adapters are idle.
            known = self._by_name[adapter] = rendezvous(adapter, self._boxes)[:1]
        return known
