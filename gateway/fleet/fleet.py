"""All boxes of all fleets: follows the policy, keeps what is known of a box that did not change, probes each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.fleet.box import Box
from gateway.fleet.gauges import show
from gateway.fleet.homes import Homes
from gateway.fleet.probe import Probe
from gateway.fleet.routing import Route
from gateway.fleet.scrape import Scrape
from gateway.fleet.slot_share import Replicas
from gateway.fleet.suspects import Suspects
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.compiled import BoxSpec, CompiledPolicy
from gateway.tasks import TaskSet
from gateway.upstream.followed_name import look_up
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool


class NewBox(Protocol):
    """Makes what is known of a box."""

    def __call__(
        self, spec: BoxSpec, pool: Pool, *, base_model: str, metrics: GatewayMetrics, alarms: Alarms, events: Events
    ) -> Box:
        """As :class:`~gateway.fleet.box.Box`."""


def default_pool(spec: BoxSpec) -> Pool:
    """A pool of connections to one box, with the time-outs that boxes get."""
    return Pool(Origin.parse(spec.url), look_up=look_up)


class Fleets:
    """The boxes as they are now. ``follow`` and ``close`` are called from the event loop's thread.

    ``uniform`` gives numbers from 0 to 1 for the probes' jitter; ``clock`` is the event loops' (both asyncio's and
    uvloop's are the system's monotonic clock). ``probing=False`` leaves the boxes unprobed, ``suspecting=False`` leaves
    it to another process to find out which adapter ends boxes.
    """

    def __init__(
        self,
        *,
        metrics: GatewayMetrics,
        alarms: Alarms,
        events: Events,
        pool_factory: Callable[[BoxSpec], Pool] = default_pool,
        uniform: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        probing: bool = True,
        suspecting: bool = True,
        new_box: NewBox = Box,
    ) -> None:
        self._metrics = metrics
        self._alarms = alarms
        self._events = events
        self._pool_factory = pool_factory
        self._uniform = uniform
        self._clock = clock
        self._probing = probing
        self._suspecting = suspecting
        self._new_box = new_box
        self.replicas = Replicas()
        """Which of how many gateways this is that share the boxes' slots."""
        self._fleets: dict[str, tuple[Box, ...]] = {}
        self.homes: dict[str, Homes] = {}
        """By fleet, where its adapters live."""
        self._suspects: dict[str, Suspects] = {}
        self._placing: dict[str, TaskSet] = {}
        self._probes: dict[Box, TaskSet] = {}
        self._leaving: list[Box] = []
        self._ending = TaskSet()
        self._unconfigured: set[str] = set()
        metrics.before_render(lambda: show(metrics, self.all(), self.homes, self._clock()))

    def prepare(self, compiled: CompiledPolicy) -> None:
        """In a thread: what :meth:`follow` will ask of ``compiled``, and takes long with thousands of customers."""
        for name in compiled.fleets:
            compiled.askable(name)

    def follow(self, compiled: CompiledPolicy) -> None:
        """Take over the boxes of a policy version. A box whose address, key and base model stayed keeps its state.

        That an operator has drained a box holds for its name, wherever the box is now.
        """
        drained = {box.name: box.drained_by for box in self.all() if box.duty.drained}
        before = {(box.spec.fleet, box.name): box for box in self.all()}
        fleets: dict[str, tuple[Box, ...]] = {}
        known: dict[str, frozenset[str]] = {}
        for fleet in compiled.fleets.values():
            adapters = compiled.askable(fleet.name)
            boxes = []
            for spec in fleet.boxes:
                box = before.get((fleet.name, spec.name))
                if box is not None and _same(box, spec, fleet.base_model):
                    del before[fleet.name, spec.name]
                    box.spec = spec
                    box.pairs.keep(adapters)
                    box.load.slots.slots = self.replicas.slots(spec.max_loras)
                else:
                    box = self._make(spec, fleet.base_model)
                    if spec.name in drained:
                        box.duty.drain()
                        box.drained_by = drained[spec.name]
                boxes.append(box)
            fleets[fleet.name] = tuple(boxes)
            known[fleet.name] = adapters
        self._fleets = fleets
        self._follow_homes(known)
        if self._suspecting:
            self._follow_suspects(known)
        for box in before.values():
            self._leave(box)
        self._leaving = [box for box in self._leaving if box.pool.open or box.in_flight]
        self._alarm_about_configuration()

    def share_with(self, replicas: Replicas) -> None:
        """So many gateways ask these boxes: this one counts on its share of their LoRA slots."""
        self.replicas = replicas
        for box in self.all():
            box.load.slots.slots = replicas.slots(box.spec.max_loras)

    def boxes(self, fleet: str) -> tuple[Box, ...]:
        """The boxes of one fleet, in the order of the YAML; empty where there is no such fleet (any more)."""
        return self._fleets.get(fleet, ())

    def boxes_for(self, fleet: str, adapter: str) -> Sequence[Box]:
        """The boxes of ``fleet`` in the order in which to ask them for one request for ``adapter``, which is counted.

        Each adapter has a home by its share of the traffic (``placement``), so that a box keeps it loaded; while little
        traffic was seen, that is the first of rendezvous hashing. ``adapter`` has to be one that a policy names, as the
        order is remembered.
        """
        homes = self.homes.get(fleet)
        return homes.boxes_for(adapter) if homes is not None else ()

    def look(self, fleet: str, adapter: str) -> Route[Box]:
        """The same with why, for one who only looks: it is not counted."""
        homes = self.homes.get(fleet)
        return homes.look(adapter) if homes is not None else Route((), (), measured=False)

    def all(self) -> tuple[Box, ...]:
        """Every box of the policy in force."""
        return tuple(box for boxes in self._fleets.values() for box in boxes)

    def with_those_that_leave(self) -> tuple[Box, ...]:
        """Every box, and those of earlier versions at which something still runs."""
        return (*self.all(), *self._leaving)

    def find(self, name: str) -> Box | None:
        """The box of that name, in whatever fleet: names are unique over all of them."""
        return next((box for box in self.all() if box.name == name), None)

    def customers_in_flight(self, name: str) -> int:
        """Customers' attempts in flight at a box, and at those that had its name in an earlier version."""
        return sum(box.customers_in_flight for box in (*self.all(), *self._leaving) if box.name == name)

    @property
    def probed(self) -> bool:
        """Whether every box was probed at least once."""
        return all(box.probed for box in self.all())

    async def close(self) -> None:
        """Stop probing and close every connection."""
        for tasks in (*self._probes.values(), *self._placing.values()):
            await tasks.close()
        self._probes.clear()
        self._placing.clear()
        await self._ending.close()
        for box in (*self.all(), *self._leaving):
            await box.pool.close()

    def take_traffic(self) -> dict[str, dict[str, int]]:
        """Requests by adapter since this was asked last, of each fleet that had any."""
        taken = {name: homes.traffic.take() for name, homes in self.homes.items()}
        return {name: counts for name, counts in taken.items() if counts}

    def _follow_homes(self, adapters: Mapping[str, frozenset[str]]) -> None:
        for name in self.homes.keys() - self._fleets.keys():
            del self.homes[name]
            if (placing := self._placing.pop(name, None)) is not None:
                self._ending.spawn(placing.close(), name=f"end of the placement of {name}")
        for name, boxes in self._fleets.items():
            if name not in self.homes:
                homes = self.homes[name] = Homes(clock=self._clock, uniform=self._uniform)
                if self._probing:
                    placing = self._placing[name] = TaskSet()
                    placing.spawn(homes.run(), name=f"placement of {name}")
            self.homes[name].follow(boxes, adapters[name])

    def _follow_suspects(self, adapters: Mapping[str, frozenset[str]]) -> None:
        for name in self._suspects.keys() - self._fleets.keys():
            self._suspects.pop(name).follow((), frozenset(), self._clock())
        for name, boxes in self._fleets.items():
            suspects = self._suspects.setdefault(name, Suspects(name, self._alarms))
            suspects.follow(boxes, adapters[name], self._clock())
            for box in boxes:
                box.suspects = suspects

    def _make(self, spec: BoxSpec, base_model: str) -> Box:
        box = self._new_box(
            spec,
            self._pool_factory(spec),
            base_model=base_model,
            metrics=self._metrics,
            alarms=self._alarms,
            events=self._events,
        )
        box.load.slots.slots = self.replicas.slots(spec.max_loras)
        if self._probing and spec.unavailable is None:
            tasks = self._probes[box] = TaskSet()
            probe = Probe(box, metrics=self._metrics, random=self._uniform)
            tasks.spawn(probe.run(), name=f"probe of {spec.name}")
            scrape = Scrape(
                box.pool,
                on_reading=box.read,
                on_failure=lambda error: self._metrics.metrics_reads_failed.inc(spec.name),
                random=self._uniform,
                api_key=spec.api_key,
            )
            tasks.spawn(scrape.run(), name=f"metrics of {spec.name}")
        return box

    def _leave(self, box: Box) -> None:
        box.retire()
        self._leaving.append(box)
        for state in ("idle", "busy"):
            self._metrics.pool_connections.remove(f"box:{box.name}", state)
        if (probes := self._probes.pop(box, None)) is not None:
            self._ending.spawn(probes.close(), name=f"end of the probe of {box.name}")

    def _alarm_about_configuration(self) -> None:
        unconfigured = {box.name: box.spec.unavailable for box in self.all() if box.spec.unavailable is not None}
        for name in self._unconfigured - unconfigured.keys():
            self._alarms.off("box_not_configured", name)
        for name, why in unconfigured.items():
            self._alarms.on("box_not_configured", name, f"box {name} cannot be asked: {why}")
        self._unconfigured = set(unconfigured)


def _same(box: Box, spec: BoxSpec, base_model: str) -> bool:
    was = box.spec
    return (was.url, was.api_key, was.unavailable, box.base_model) == (
        spec.url,
        spec.api_key,
        spec.unavailable,
        base_model,
    )
