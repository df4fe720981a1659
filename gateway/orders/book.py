"""All orders that a gateway knows of, and until when each holds here. Pure: clocks are handed in.

An order ends at its time, or when it is taken back, which is an entry of its own (``over``). What merely vanishes from
the store, because that was emptied or brought back from an old backup, holds on and is written there again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from gateway.observe.actor import UNKNOWN, Actor
from gateway.orders.order import ALL, LONGEST_S, Order, newer


@dataclass(frozen=True, slots=True)
class Standing:
    """An order that is in force, and how many seconds it has left."""

    order: Order
    left_s: float


class OrderBook:
    """``now`` is monotonic, in seconds; ``server_ms`` the store's clock at the same moment, in Unix milliseconds."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}
        # Of each order by its id, worked out when it was first heard of: a clock that jumps later moves nothing.
        self._ends: dict[str, float] = {}

    def take(self, orders: Iterable[Order], server_ms: int, now: float) -> bool:
        """Learn of ``orders``. Whether that has changed what is in force."""
        changed = False
        for order in orders:
            known = self._orders.get(order.target)
            holds = order if known is None else newer(known, order)
            if holds == known or (order.id not in self._ends and order.until_ms <= server_ms):
                continue
            self._orders[order.target] = holds
            self._ends.setdefault(order.id, now + _left_s(order, server_ms))
            changed = True
        return changed

    def issue(
        self, id: str, target: str, for_s: float, server_ms: int, now: float, *, reason: str, actor: Actor = UNKNOWN
    ) -> Order:
        """A new order for ``target``, in force from now on in place of any other for it."""
        known = self._orders.get(target)
        at_ms = server_ms if known is None else max(server_ms, known.at_ms + 1)
        until_ms = server_ms + round(min(for_s, LONGEST_S) * 1000)
        order = Order(id=id, target=target, at_ms=at_ms, until_ms=until_ms, reason=reason, by=actor.by, user=actor.user)
        self.take([order], server_ms, now)
        return order

    def take_back(self, target: str, now: float, actor: Actor = UNKNOWN) -> list[Order]:
        """End the order for ``target`` (for :data:`~gateway.orders.order.ALL`: every order); those that were ended."""
        ended = [one.order for one in self.standing(now) if target in (ALL, one.order.target)]
        for order in ended:
            self._orders[order.target] = msgspec.structs.replace(
                order, over=True, ended_by=actor.by, ended_user=actor.user
            )
        return ended

    def reckon_anew(self, ids: Collection[str], server_ms: int, now: float) -> None:
        """Work out again when these orders end: so far it was by a clock that was not the store's."""
        for order in self._orders.values():
            if order.id in ids:
                self._ends[order.id] = now + _left_s(order, server_ms)

    def unfinished(self, now: float) -> list[Order]:
        """All entries that a gateway needs that knows nothing yet: those that would still run, taken back or not."""
        return [order for order in self._orders.values() if self._ends[order.id] > now]

    def last(self, target: str) -> Order | None:
        """The last entry of ``target``, in force or not."""
        return self._orders.get(target)

    def entries(self, targets: Iterable[str]) -> list[Order]:
        """The last entry of each of ``targets``, as it is to be kept in the store."""
        return [self._orders[target] for target in targets]

    def standing(self, now: float) -> list[Standing]:
        """What is in force, that for all customers first, then by name."""
        left = [Standing(order, self._ends[order.id] - now) for _, order in sorted(self._orders.items())]
        return [one for one in left if one.left_s > 0 and not one.order.over]

    def ends(self, now: float) -> dict[str, float]:
        """By target, until when its order holds, in monotonic seconds."""
        return {one.order.target: self._ends[one.order.id] for one in self.standing(now)}

    def lacking(self, stored: Mapping[str, Order], now: float) -> list[Order]:
        """What the store, which holds ``stored``, does not know and has to: orders that would still run."""
        return [
            order
            for target, order in self._orders.items()
            if self._ends[order.id] > now and ((there := stored.get(target)) is None or newer(order, there) != there)
        ]

    def forget(self, stored: Mapping[str, Order], now: float) -> None:
        """Let go of what has ended and is not in the store, which holds ``stored``, any more."""
        ids = {order.id for order in stored.values()}
        gone = [target for target, order in self._orders.items() if self._ends[order.id] <= now and order.id not in ids]
        for target in gone:
            del self._orders[target]
        kept = ids | {order.id for order in self._orders.values()}
        self._ends = {id: end for id, end in self._ends.items() if id in kept}


def _left_s(order: Order, server_ms: int) -> float:
    return min((order.until_ms - server_ms) / 1000, LONGEST_S)
