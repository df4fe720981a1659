"""Has each way to fall back proven within its time, by one of the gateways on the store, and tells of all proofs."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Protocol

from gateway.drills.drill import Outcome
from gateway.drills.drill_store import DrillStore
from gateway.drills.ledger import Entry, Ledger
from gateway.drills.proof import By, Proof, followed_by
from gateway.drills.target import Target, targets_of
from gateway.errors import StoreError
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics
from gateway.orders.server_clock import ServerClock
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, ProviderStep
from gateway.policy.reconnect import patiently
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

FAILED = "drill_failed"
STALE = "drill_stale"
"""The alarms' kinds; a subject is a provider or a fleet's base, however many customers it is about."""

LOOK_S = 0.5
"""How often it is looked what is due. At each look one drill begins: ten thousand take some hours, and no burst."""

AT_ONCE = 2
"""Drills that run at a time, those by command beside them."""

BY_COMMAND_AT_ONCE = 8

ALARMS_S = 5.0
"""How often it is looked at the latest what has failed or become stale."""

FEW = 500
"""With so many at most, all is looked at at once; with more, to look at all of them each time would hold others up."""

POSTPONED_S = 15.0
"""Where another gateway tries it, or the store is away."""

MOST_SERIES = 2000
"""Customers and steps of which a metric tells the age one by one; of more, those that need a look first."""

NAMED = 3
"""How many customers an alarm names."""


class Prover(Protocol):
    """Who tries; see :class:`gateway.drills.drill.Prover`."""

    async def prove(self, target: Target, payer: CustomerPolicy | None = None) -> Outcome:
        """Try ``target`` once, in the name of ``payer``; None: of one of its customers."""


class DrillKeeper:
    """``follow`` each policy, ``start`` once there is a store. ``uniform`` gives numbers from 0 to 1."""

    def __init__(
        self,
        prover: Prover,
        *,
        metrics: GatewayMetrics,
        alarms: Alarms,
        events: Events,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._prover = prover
        self._metrics = metrics
        self._alarms = alarms
        self._events = events
        self._clock = clock
        self._ledger = Ledger(uniform)
        self._server = ServerClock()
        self._gateway = uuid.uuid4().hex
        self._store: DrillStore | None = None
        self._tasks = TaskSet()
        self._running: set[str] = set()
        self._by_command = asyncio.Semaphore(BY_COMMAND_AT_ONCE)
        self._unshared = asyncio.Event()
        self._shared: dict[str, Proof] = {}
        self._following: CompiledPolicy | None = None
        self._looked = False
        self._dirty = False
        self._alarmed: set[tuple[str, str]] = set()
        self._listeners: list[Callable[[], None]] = []
        metrics.before_render(self._show)

    def on_drill(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each drill: breakers may have moved."""
        self._listeners.append(listener)

    def follow(self, compiled: CompiledPolicy) -> None:
        """This version is in force. With many customers its steps are known some moments later."""
        self._following = compiled
        if len(compiled.customers) <= FEW:
            self._have(targets_of(compiled))
        else:
            self._tasks.spawn(self._follow_many(compiled), name="what is to be drilled")

    async def _follow_many(self, compiled: CompiledPolicy) -> None:
        # A tenth of a second for ten thousand, in which requests are answered.
        targets = await asyncio.to_thread(targets_of, compiled)
        if self._following is compiled:
            self._have(targets)

    def _have(self, targets: Mapping[str, Target]) -> None:
        now = self._clock()
        self._ledger.follow(targets, self._server.ms(now), now)
        self._look_for_trouble()

    def start(self, url: str) -> None:
        """Share proofs through the store at ``url``, and have drilled what is due."""
        self._store = store = DrillStore(url)
        self._tasks.spawn(self._follow(store), name="proofs")
        self._tasks.spawn(self._share(store), name="proofs to be shared")
        self._tasks.spawn(self._keep_going(store), name="drills")

    async def close(self) -> None:
        """Drill no more."""
        await self._tasks.close()
        if self._store is not None:
            await self._store.close()

    def entries(self, customer: str | None = None) -> list[Entry]:
        """All ways to fall back (of ``customer``), what needs a look first."""
        now = self._clock()
        found = self._ledger.entries(self._server.ms(now), now)
        return found if customer is None else [entry for entry in found if customer in entry.target.customers]

    async def drill(self, customer: CustomerPolicy, provider: str | None = None) -> list[Entry]:
        """Try each step of ``customer``'s fallback now (or those that ask ``provider``), and what came of it."""
        targets = [
            target
            for target in self._ledger.targets.values()
            if customer.name in target.customers
            and (provider is None or (isinstance(target.step, ProviderStep) and target.step.provider.name == provider))
        ]
        await asyncio.gather(*(self._commanded(target, customer) for target in targets))
        self._look_for_trouble()
        now = self._clock()
        return [self._ledger.entry(target, self._server.ms(now), now) for target in targets]

    def testify(self, key: str, *, model: str, error: str) -> None:
        """A customer's request has tried what has this key."""
        self._learn(key, by="traffic", model=model, error=error)

    # Drills.

    async def _commanded(self, target: Target, customer: CustomerPolicy) -> None:
        async with self._by_command:
            await self._try(target, by="command", payer=customer)

    async def _keep_going(self, store: DrillStore) -> None:
        next_look = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._clock()
            if now >= next_look or (self._dirty and len(self._ledger.targets) <= FEW):
                next_look = now + ALARMS_S
                self._look_for_trouble()
            # What the others have proven is to be known before anything is tried again.
            if not self._looked or len(self._running) >= AT_ONCE:
                continue
            due = next((target for target in self._ledger.due(now) if target.key not in self._running), None)
            if due is None:
                continue
            if isinstance(due.step, ProviderStep) and due.step.provider.unavailable is not None:
                # It is this gateway that lacks its key, which alarms already: another one may have it.
                self._ledger.postpone(due.key, now + POSTPONED_S)
                continue
            self._running.add(due.key)
            self._tasks.spawn(self._in_turn(store, due), name=f"drill of {due.name}")

    async def _in_turn(self, store: DrillStore, target: Target) -> None:
        """Try what is due, unless another gateway does or has done so."""
        self._ledger.postpone(target.key, self._clock() + POSTPONED_S)
        try:
            if not await store.claim(target.key, self._gateway):
                return
            known = await store.newest(target.key)
            if known is None or not self._take([known]):
                await self._try(target, by="schedule")
                await self._write(store)
            await store.release(target.key)
        except StoreError as error:
            log.info("drills: the store is away, and whose turn a drill is cannot be settled: %s", error)
        finally:
            self._running.discard(target.key)

    async def _try(self, target: Target, *, by: By, payer: CustomerPolicy | None = None) -> None:
        outcome = await self._prover.prove(target, payer)
        if outcome.held_back:
            # It shows nothing of the step: what was known holds, and grows older.
            self._metrics.drills.inc(target.name, "held_back")
            self._ledger.hold_back(target.key, outcome.held_back, self._clock() + outcome.again_s)
            return
        self._metrics.drills.inc(target.name, "failed" if outcome.error else "passed")
        fields = {"error": outcome.error} if outcome.error else {"first_content_ms": outcome.first_content_ms or 0}
        if outcome.error or by == "command":
            self._events.add("drill", step=target.name, customers=len(target.customers), by=by, **fields)
        self._learn(
            target.key,
            by=by,
            model=outcome.model,
            error=outcome.error,
            first_content_ms=outcome.first_content_ms,
        )
        for listener in self._listeners:
            listener()

    def _learn(self, key: str, *, by: By, model: str, error: str, first_content_ms: int | None = None) -> None:
        at_ms = self._server.ms(self._clock())
        known = self._ledger.proof(key)
        if known is not None:
            # Of two tries in one millisecond, or with a clock that was set back, the later is the later.
            at_ms = max(at_ms, known.at_ms + 1)
        proof = followed_by(
            known, key=key, at_ms=at_ms, by=by, error=error, model=model, first_content_ms=first_content_ms
        )
        self._take([proof])
        self._unshared.set()

    # The store.

    def _take(self, proofs: Iterable[Proof]) -> bool:
        now = self._clock()
        new = self._ledger.take(proofs, self._server.ms(now), now)
        self._dirty |= new
        return new

    async def _follow(self, store: DrillStore) -> None:
        await patiently()(self._watch, store)

    async def _watch(self, store: DrillStore) -> None:
        async with aclosing(store.watch()) as looks:
            async for server_ms, proofs, all_ in looks:
                self._server.heard(server_ms, self._clock())
                self._take(proofs.values())
                self._shared = dict(proofs) if all_ else {**self._shared, **proofs}
                if all_:
                    self._looked = True
                    await self._write(store)

    async def _share(self, store: DrillStore) -> None:
        """What is learned here is written as soon as the store takes it."""
        while True:
            await self._unshared.wait()
            self._unshared.clear()
            await patiently()(self._write, store)

    async def _write(self, store: DrillStore) -> None:
        """Write what the store is not known to have. Raises StoreUnreachable."""
        if news := self._ledger.lacking(self._shared):
            await store.write(news)
            self._shared |= {proof.key: proof for proof in news}

    # What is told.

    def _look_for_trouble(self) -> None:
        self._dirty = False
        trouble: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        now = self._clock()
        for entry in self._ledger.troubled(self._server.ms(now), now):
            trouble[FAILED if entry.state == "failed" else STALE, entry.target.name].append(entry)
        for kind, name in self._alarmed - trouble.keys():
            self._alarms.off(kind, name)
        for (kind, name), entries in trouble.items():
            self._alarms.on(kind, name, _failed(name, entries) if kind == FAILED else _stale(name, entries))
        self._alarmed = set(trouble)

    def _show(self) -> None:
        ages: dict[tuple[str, ...], float] = {}
        oldest: dict[tuple[str, ...], float] = {}
        for entry in self.entries():
            age_s = float("inf") if entry.age_s is None else entry.age_s
            name = entry.target.name
            oldest[name,] = max(age_s, oldest.get((name,), 0.0))
            for customer in entry.target.customers:
                if len(ages) >= MOST_SERIES:
                    break
                ages[customer, name] = max(age_s, ages.get((customer, name), 0.0))
        self._metrics.drill_proof_age_seconds.replace(ages)
        self._metrics.drill_oldest_proof_age_seconds.replace(oldest)


def _failed(name: str, entries: list[Entry]) -> str:
    errors = list(dict.fromkeys(entry.proof.error for entry in entries if entry.proof is not None))
    return f"the last try of {name} failed, on which {_customers(entries)} would fall back: {errors[0]}"


def _stale(name: str, entries: list[Entry]) -> str:
    return f"{name}, on which {_customers(entries)} would fall back, was not proven to work for twice its interval"


def _customers(entries: list[Entry]) -> str:
    names = sorted({name for entry in entries for name in entry.target.customers})
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
