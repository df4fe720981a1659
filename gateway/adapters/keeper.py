"""Keeps the adapters on the boxes as policies name them, in one gateway of all: off the request path.

A box is looked at when a policy version comes in force, when it comes back or was found to lack an adapter, and every
so often; of which fleets, their policy says (``sync.watch``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.adapters.box_sync import BoxReport, Step
from gateway.adapters.fleet_sync import FleetSync
from gateway.adapters.lease import Lease
from gateway.adapters.plan import Kind, Load, Terms, Verify
from gateway.adapters.wanted import Wanted, wanted_of
from gateway.errors import StoreError
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.store import PolicyStore
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

ALARM = "adapter_sync"

TICK_S = 0.25
"""How often it is seen whether there is anything to look at, which asks nobody."""
MISSED_S = 2.0
"""After a look a box that lacks an adapter, or waits for something to end, is looked at again no sooner than this."""
NAMED = 3
"""Adapters that an alarm names."""

Document = dict[str, Any]


class BoxCustomers:
    """A box's customers, as this gateway (with all of its workers) has them."""

    def __init__(self, box: Box, clock: Callable[[], float]) -> None:
        self._box = box
        self._clock = clock

    def in_flight(self) -> Set[str]:
        """The adapters that have requests in flight."""
        return self._box.load.attempts.adapters.keys()

    def suspected(self) -> Set[str]:
        """See :mod:`gateway.fleet.suspects`."""
        return self._box.pairs.suspected().keys()

    def hold(self, adapter: str) -> None:
        """See :meth:`gateway.fleet.box.Box.hold`."""
        self._box.hold(adapter, self._clock())

    def let(self, adapter: str, *, answers: bool) -> None:
        """See :meth:`gateway.fleet.box.Box.let`."""
        self._box.let(adapter, answers=answers)


@dataclass(slots=True)
class _Watched:
    """What the keeper remembers of one box. Times are the loop's."""

    due_at: float
    looked_at: float | None = None
    away: bool = False
    report: BoxReport | None = None


class HasStore(Protocol):
    """Who follows the policies."""

    @property
    def store(self) -> PolicyStore:
        """Where they are, and their earlier versions. Raises StoreError while there is none."""


class AdapterKeeper:
    """``policies``: where earlier versions are."""

    def __init__(
        self,
        fleets: Fleets,
        policies: HasStore,
        metrics: GatewayMetrics,
        alarms: Alarms,
        events: Events,
    ) -> None:
        self._fleets = fleets
        self._policies = policies
        self._metrics = metrics.adapter_sync
        self._alarms = alarms
        self._events = events
        self._prepared: tuple[CompiledPolicy, Mapping[str, Mapping[str, Wanted]]] | None = None
        self._lease = Lease(self._lease_changed)
        self._url: str | None = None
        self._tasks = TaskSet()
        self._running: dict[str, TaskSet] = {}
        self._syncs: dict[str, FleetSync] = {}
        self._watched: dict[Box, _Watched] = {}
        self._watching: frozenset[str] = frozenset()

    def start(self, url: str) -> None:
        """``url``: the store's, through which gateways agree on who acts. From here on it may be this one."""
        self._url = url
        self._tend()

    def prepare(self, policy: CompiledPolicy) -> None:
        """In a thread: work out what :meth:`follow` will need for ``policy``."""
        self._prepared = policy, {name: wanted_of(policy, name) for name in policy.fleets}

    def follow(self, policy: CompiledPolicy) -> None:
        """A version came in force; the fleets follow it already."""
        self._watching = frozenset(name for name, fleet in policy.fleets.items() if fleet.sync.watch)
        prepared, self._prepared = self._prepared, None
        wanted = prepared[1] if prepared is not None and prepared[0] is policy else {}
        for name in policy.fleets:
            # Also where it is not watched: what is dropped now may be unloaded once it is.
            self._syncs.setdefault(name, FleetSync(name, self._store, self._told)).follow(policy, wanted.get(name))
        for name in self._syncs.keys() - policy.fleets.keys():
            del self._syncs[name]
        boxes = [box for box in self._fleets.all() if box.spec.fleet in self._watching]
        for box in self._watched.keys() - set(boxes):
            self._forget(box)
        for box in boxes:
            self._watched.setdefault(box, _Watched(0.0)).due_at = 0.0
        self._tend()

    async def close(self) -> None:
        """Stop, and let another gateway take over."""
        for tasks in (*self._running.values(), self._tasks):
            await tasks.close()
        if self._url is not None:
            try:
                await self._lease.give_up(self._url)
            except StoreError as error:
                log.info("adapters: another gateway takes over when the lease has run out: %s", error)

    def status(self) -> list[Document]:
        """Each box that is watched, as it was when last looked at here."""
        return [self._document(box, watched) for box, watched in self._watched.items()]

    # Inside.

    def _store(self) -> PolicyStore | None:
        try:
            return self._policies.store
        except StoreError:
            return None

    def _tend(self) -> None:
        """One task a watched fleet, and one for the lease."""
        if self._url is None:
            return
        if self._watching and not self._tasks:
            self._tasks.spawn(self._lease.keep(self._url), name="lease of the adapters")
        for name in self._watching - self._running.keys():
            tasks = self._running[name] = TaskSet()
            tasks.spawn(self._watch(name), name=f"adapters of {name}")

    def _lease_changed(self) -> None:
        acts = self._lease.mine
        self._metrics.acting.set(acts)
        self._events.add("adapter_sync", acting=acts)
        for box, watched in self._watched.items():
            watched.due_at = 0.0
            if not acts:
                watched.report = None
                self._alarms.off(ALARM, box.name)

    async def _watch(self, fleet: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._lease.mine and fleet in self._watching:
                for box in self._fleets.boxes(fleet):
                    watched = self._watched.get(box)
                    if watched is not None and self._is_due(box, watched, loop.time()):
                        try:
                            await self._look(box, watched)
                        except Exception:
                            log.exception("adapters: box %s", box.name)
                            watched.due_at = loop.time() + self._syncs[fleet].spec.sync.every_s
            await asyncio.sleep(TICK_S)

    def _is_due(self, box: Box, watched: _Watched, now: float) -> bool:
        if box.spec.unavailable is not None:
            return False
        if not box.breaker.closed:
            watched.away = True
            return False
        if watched.away or watched.due_at <= now:
            return True
        # Somebody was told that it lacks one: it has restarted faster than a probe could see, or was told by others.
        wanted = self._syncs[box.spec.fleet].wanted
        lacks = [adapter for adapter in box.pairs.missing() if adapter in wanted]
        blocked = set(self._syncs[box.spec.fleet].failures.held(box.name, wanted, now))
        if watched.report is not None:
            blocked.update(one.adapter for one in watched.report.plan.wrong)
        return any(one not in blocked for one in lacks) and (watched.looked_at or 0.0) + MISSED_S <= now

    async def _look(self, box: Box, watched: _Watched) -> None:
        loop = asyncio.get_running_loop()
        sync = self._syncs[box.spec.fleet]
        watched.away = False
        # Before it is looked at, so that what happens meanwhile is looked at again.
        watched.due_at = watched.looked_at = loop.time() + sync.spec.sync.every_s

        def terms() -> Terms:
            return sync.terms(unload=self._lease.sure)

        report = await sync.one(sync.box(box.spec, box.pool, BoxCustomers(box, loop.time)), terms)
        if box not in self._watched:
            return
        now = watched.looked_at = loop.time()
        watched.report = report
        if report.plan.waiting:
            watched.due_at = min(watched.due_at, now + MISSED_S)
        if (again_at := sync.next_try_at()) is not None:
            watched.due_at = min(watched.due_at, max(again_at, now + MISSED_S))
        if not report.unreached:
            box.listed(frozenset(report.plan.kept))
        self._tell(box, report)

    def _told(self, step: Step) -> None:
        if step.outcome == "begun":
            return
        action = type(step.action).__name__.lower()
        self._metrics.actions.inc(step.box, action, step.outcome)
        why = {"why": step.text} if step.text else {}
        self._events.add(f"adapter_{action}", box=step.box, adapter=step.action.adapter, outcome=step.outcome, **why)

    def _tell(self, box: Box, report: BoxReport) -> None:
        if not report.unreached:
            self._metrics.pending.set(len(_pending(report)), box.name)
        wrong = [f"{held.adapter} {held.text}" for held in report.plan.wrong]
        if report.trouble and not report.unreached:
            wrong.insert(0, report.trouble)
        if wrong:
            more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
            self._alarms.on(ALARM, box.name, f"box {box.name}: {'; '.join(wrong[:NAMED])}{more}")
        elif not report.unreached:
            self._alarms.off(ALARM, box.name)

    def _forget(self, box: Box) -> None:
        del self._watched[box]
        self._alarms.off(ALARM, box.name)
        self._metrics.pending.remove(box.name)

    def _document(self, box: Box, watched: _Watched) -> Document:
        report, now = watched.report, asyncio.get_running_loop().time()
        shown: Document = {"box": box.name, "fleet": box.spec.fleet, "acting": self._lease.mine, "looked_s_ago": None}
        if report is None or watched.looked_at is None:
            return {**shown, "pending": [], "failed": [], "waiting": [], "not_ours": [], "trouble": ""}
        sync = self._syncs[box.spec.fleet]
        return {
            **shown,
            "looked_s_ago": round(max(0.0, now - watched.looked_at), 1),
            "pending": _pending(report),
            "failed": [
                {
                    "adapter": adapter,
                    "why": one.text,
                    "times": one.times,
                    "retry_in_s": round(max(0.0, one.retry_at - now), 1),
                }
                for adapter, one in sorted(sync.failures.known(box.name).items())
            ],
            "waiting": [{"adapter": one.adapter, "why": one.text} for one in report.plan.waiting],
            "not_ours": [one.adapter for one in report.plan.held if one.kind is Kind.NOT_OURS],
            "trouble": report.trouble,
        }


def _pending(report: BoxReport) -> list[str]:
    """What policies name and the box has not, or has without an answer."""
    return sorted(
        {one.adapter for one in report.plan.wrong}
        | {one.adapter for one in report.plan.actions if isinstance(one, Load | Verify)}
    )
