"""The homes of one fleet's adapters over time: counts requests, and places anew now and then beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from gateway.fleet.box import Box
from gateway.fleet.placement import Placement, rebalance
from gateway.fleet.rendezvous import rendezvous
from gateway.fleet.routing import route
from gateway.fleet.traffic import Traffic

REBALANCE_S = 5.0
"""Of rates that are means over minutes. For 1,000 adapters on 50 boxes one takes some 0.1 s, in steps of 1 to 2 ms."""

LEAST_REQUESTS = 200.0
"""Before so many, shares of the traffic are chance, and adapters stay where rendezvous hashing has them."""


class Homes:
    """Called from the event loop's thread. ``uniform`` gives numbers from 0 to 1, ``clock`` monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float], uniform: Callable[[], float]) -> None:
        self._clock = clock
        self._uniform = uniform
        self._traffic = Traffic(clock())
        self._boxes: dict[str, Box] = {}
        self._orders: dict[str, tuple[tuple[Box, ...], int]] = {}
        self.placement: Placement | None = None
        """As it was last worked out; None: all is as rendezvous hashing has it."""

    def follow(self, boxes: Sequence[Box]) -> None:
        """These are the fleet's boxes now. Who lived on one that left goes by rendezvous until all are placed anew."""
        self._boxes = {box.name: box for box in boxes}
        self._orders = {}

    def boxes_for(self, adapter: str) -> Sequence[Box]:
        """The boxes in the order in which to ask them for a request that has just come; it is counted."""
        self._traffic.seen(adapter)
        known = self._orders.get(adapter)
        if known is None:
            known = self._orders[adapter] = self._order(adapter)
        boxes, homes = known
        return route(boxes, homes, adapter) if homes else boxes

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
        rates = self._traffic.rates(self._clock())
        if self._traffic.remembered < LEAST_REQUESTS:
            return
        slots = {box.name: box.load.slots.slots for box in self._boxes.values() if box.spec.unavailable is None}
        steps = rebalance(rates, slots, self.placement, uniform=self._uniform)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                self.placement = end.value
                self._orders = {}
                return
            await asyncio.sleep(0)

    def _order(self, adapter: str) -> tuple[tuple[Box, ...], int]:
        """All boxes, and how many homes are at their head: none where the adapter was not placed."""
        homes = self.placement.homes.get(adapter, ()) if self.placement is not None else ()
        there = [name for name in homes if name in self._boxes]
        others = [name for name in rendezvous(adapter, self._boxes) if name not in there]
        return tuple(self._boxes[name] for name in (*there, *others)), len(there)
