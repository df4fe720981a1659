"""Keeps the orders of ops: takes them, shares them with all gateways on the store, follows theirs, and tells of them.

An order holds here from the moment it is given, also while the store is away; it is shared as soon as that is back. All
are on disk too, for a gateway that starts again meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path

from gateway.clock import wall_s
from gateway.errors import StoreCorrupt, StoreError
from gateway.observe.actor import UNKNOWN, Actor
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics
from gateway.orders.book import OrderBook, Standing
from gateway.orders.forced import Forced
from gateway.orders.order import ALL, Order
from gateway.orders.order_store import OrderStore
from gateway.orders.server_clock import ServerClock
from gateway.orders.snapshot import OrderSnapshot, Remembered
from gateway.policy.reconnect import patiently
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

IN_FORCE = "degraded_by_order"
"""The alarm's kind while an order is in force."""

UNREADABLE = "orders_unreadable"

NOT_ON_DISK = "orders_snapshot"
"""The alarm's kind where orders cannot be kept on disk, or what was there cannot be read."""

FIRST_LOOK_S = 1.0
"""So long the start waits for what is in force already: a gateway that starts anew should begin with it."""

SHARED_WITHIN_S = 2.0
"""Whoever gives an order is told by then whether the store has it; one that is slow gets it when it can."""

OnChange = Callable[[Mapping[str, float]], None]


class OrderKeeper:
    """``forced`` is what the request path reads. Without ``start`` orders hold for this gateway alone."""

    def __init__(
        self,
        *,
        metrics: GatewayMetrics,
        alarms: Alarms,
        events: Events,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.forced = Forced()
        self._book = OrderBook()
        self._server = ServerClock()
        self._alarms = alarms
        self._events = events
        self._clock = clock
        self._listeners: list[OnChange] = []
        self._told: dict[str, Order] = {}
        self._store: OrderStore | None = None
        self._snapshot: OrderSnapshot | None = None
        self._recalled: frozenset[str] = frozenset()
        self._saving = asyncio.Lock()
        self._saved: list[Order] = []
        self._tasks = TaskSet()
        self._looked = asyncio.Event()
        self._next_end: asyncio.TimerHandle | None = None
        metrics.before_render(
            lambda: metrics.order_seconds_left.replace({(one.order.target,): one.left_s for one in self.standing()})
        )

    def on_change(self, listener: OnChange) -> None:
        """Call ``listener`` with what ``forced.ends`` has become, at each change."""
        self._listeners.append(listener)

    def standing(self) -> list[Standing]:
        """The orders in force."""
        return self._book.standing(self._clock())

    async def start(self, url: str, state_dir: Path | None = None) -> None:
        """Follow the orders in the store at ``url``, and wait a moment for those that are in force.

        ``state_dir``: where they are remembered, and what was in force before this gateway was started again.
        """
        self._store = OrderStore(url)
        if state_dir is not None:
            self._snapshot = OrderSnapshot(state_dir, self._store.address)
            await self._recall(self._snapshot)
        self._tasks.spawn(self._follow(self._store), name="orders")
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._looked.wait()
        except TimeoutError:
            log.warning("orders: the store does not say which are in force; they are followed once it does")

    async def close(self) -> None:
        """Stop following. What is in force stays so."""
        await self._tasks.close()
        if self._next_end is not None:
            self._next_end.cancel()
        if self._store is not None:
            await self._store.close()

    async def degrade(self, target: str, for_s: float, *, reason: str, actor: Actor = UNKNOWN) -> tuple[Order, bool]:
        """Have ``target`` (a customer, or :data:`ALL`) answered by its fallback. The order, and whether it is shared.

        It holds here at once. Not shared: the store is away, and the other gateways follow when it is back.
        """
        now = self._clock()
        order = self._book.issue(uuid.uuid4().hex, target, for_s, self._server.ms(now), now, reason=reason, actor=actor)
        self._changed()
        await self._save()
        return order, await self._shared([order])

    async def restore(self, target: str, actor: Actor = UNKNOWN) -> tuple[list[Order], bool]:
        """Take back the order for ``target``, or (:data:`ALL`) every order: those it was, and whether it is shared."""
        ended = self._book.take_back(target, self._clock(), actor)
        self._changed()
        await self._save()
        return ended, not ended or await self._shared(self._book.entries(order.target for order in ended))

    async def _shared(self, orders: list[Order]) -> bool:
        if self._store is None:
            return False
        try:
            async with asyncio.timeout(SHARED_WITHIN_S):
                await self._store.write(orders)
        except (StoreError, TimeoutError) as error:
            log.warning("orders: held by this gateway alone until the store is back: %s", error)
            return False
        return True

    async def _follow(self, store: OrderStore) -> None:
        patient = patiently()
        await patient(self._watch, store)

    async def _watch(self, store: OrderStore) -> None:
        try:
            async with aclosing(store.watch()) as looks:
                async for server_ms, stored in looks:
                    self._alarms.off(UNREADABLE, "orders")
                    now = self._clock()
                    self._server.heard(server_ms, now)
                    recalled, self._recalled = self._recalled, frozenset()
                    self._book.reckon_anew(recalled, server_ms, now)
                    if self._book.take(stored.values(), server_ms, now) or recalled:
                        self._changed()
                        await self._save()
                    self._looked.set()
                    self._book.forget(stored, now)
                    if lacking := self._book.lacking(stored, now):
                        await store.write(lacking)
        except StoreCorrupt as error:
            self._alarms.on(UNREADABLE, "orders", f"orders in the store cannot be read, those known stay: {error}")
            raise

    # What a gateway that starts again still knows.

    async def _recall(self, snapshot: OrderSnapshot) -> None:
        try:
            found = await asyncio.to_thread(snapshot.read)
        except (StoreCorrupt, OSError) as error:
            self._alarms.on(NOT_ON_DISK, "orders", f"orders from before the start are not known: {error}")
            return
        now, server_ms = self._clock(), int(wall_s() * 1000) + found.ahead_ms
        if self._book.take(found.orders, server_ms, now):
            self._server.heard(server_ms, now)
            self._saved = self._book.unfinished(now)
            self._recalled = frozenset(order.id for order in self._saved)
            self._changed()

    async def _save(self) -> None:
        if self._snapshot is None:
            return
        async with self._saving:
            now = self._clock()
            unfinished = self._book.unfinished(now)
            if unfinished == self._saved:
                return
            remembered = Remembered(unfinished, self._server.ms(now) - int(wall_s() * 1000))
            try:
                await asyncio.to_thread(self._snapshot.write, remembered)
            except OSError as error:
                message = f"{self._snapshot.path} cannot be written, a restart would not know the orders: {error}"
                self._alarms.on(NOT_ON_DISK, "orders", message)
            else:
                self._saved = unfinished
                self._alarms.off(NOT_ON_DISK, "orders")

    # What has changed is told to everybody.

    def _changed(self) -> None:
        now = self._clock()
        self.forced.ends = self._book.ends(now)
        for listener in self._listeners:
            listener(self.forced.ends)
        self._tell({one.order.target: one.order for one in self._book.standing(now)})
        if self._next_end is not None:
            self._next_end.cancel()
            self._next_end = None
        if self.forced.ends:
            until_s = min(self.forced.ends.values()) - now
            # Some milliseconds late rather than early: a timer may come a little before its time.
            self._next_end = asyncio.get_running_loop().call_later(until_s + 0.005, self._changed)

    def _tell(self, standing: dict[str, Order]) -> None:
        before, self._told = self._told, standing
        for target, order in standing.items():
            if (known := before.get(target)) is not None and known.id == order.id:
                continue
            self._alarms.on(IN_FORCE, order.whom, _in_words(order))
            for_s = round((order.until_ms - order.at_ms) / 1000)
            self._events.add(
                "order_given", customer=order.whom, for_s=for_s, by=order.by, user=order.user, reason=order.reason
            )
        for target, order in before.items():
            if target not in standing:
                self._alarms.off(IN_FORCE, order.whom)
                last = self._book.last(target)
                ended = last is not None and last.id == order.id and last.over
                who = {"by": last.ended_by, "user": last.ended_user} if ended and last is not None else {}
                self._events.add("order_over", customer=order.whom, **who)


def _in_words(order: Order) -> str:
    who = f" of {line}" if (line := Actor(order.by, order.user).line) else ""
    why = f": {order.reason}" if order.reason else ""
    verb = "are" if order.target == ALL else "is"
    return f"{order.whom} {verb} to be answered by the fallback, by order{who}{why}"
