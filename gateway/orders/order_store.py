"""Orders in Redis, next to the policies.

``{failsoft}:orders``
    hash: by target, its last order as JSON, also one that was taken back, until its time is over; gone by itself then
``{failsoft}:orders:changes``
    channel: that there is something new
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, cast

import msgspec

from gateway.errors import StoreCorrupt
from gateway.orders.order import Order
from gateway.policy.redis_link import ANSWER_TIMEOUT_S, PREFIX, RedisLink

ORDERS_KEY = PREFIX + "orders"
CHANGES = PREFIX + "orders:changes"

POLL_S = 1.0
"""How often a gateway looks by itself, should a message be lost."""

Look = tuple[int, Mapping[str, Order]]
"""The server's clock in Unix milliseconds, and the orders by target."""


class OrderStore:
    """Every method raises only :class:`~gateway.errors.StoreError`. ``url``: as :class:`RedisLink` takes it."""

    def __init__(self, url: str) -> None:
        self._link = RedisLink(url)
        self.address = self._link.address
        """The URL without credentials."""

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()

    async def read(self) -> Look:
        """What there is now. Raises StoreUnreachable, StoreCorrupt."""
        redis = self._link.redis
        async with self._link.mapped():
            seconds, microseconds = await redis.time()
            raw = cast("Mapping[bytes, bytes]", await redis.hgetall(ORDERS_KEY))
        try:
            orders = {target.decode(): msgspec.json.decode(order, type=Order) for target, order in raw.items()}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreCorrupt(f"{ORDERS_KEY} holds what is no order: {error}") from None
        return int(seconds) * 1000 + int(microseconds) // 1000, orders

    async def write(self, orders: Iterable[Order]) -> None:
        """Put ``orders`` in the place of what there is for their targets, and say so. Raises StoreUnreachable."""
        server_ms, stored = await self.read()
        merged = {**stored, **{order.target: order for order in orders}}
        ended = [target for target, order in merged.items() if order.until_ms <= server_ms]
        values = {order.target: msgspec.json.encode(order) for order in orders if order.target not in ended}
        last_ms = max((order.until_ms for order in merged.values()), default=server_ms)
        async with self._link.mapped(), self._link.redis.pipeline(transaction=True) as pipe:
            if ended:
                pipe.hdel(ORDERS_KEY, *ended)
            if values:
                pipe.hset(ORDERS_KEY, mapping=cast("Any", values))
            pipe.pexpireat(ORDERS_KEY, max(last_ms, server_ms + 1))
            pipe.publish(CHANGES, "")
            await pipe.execute()

    async def watch(self, poll_s: float = POLL_S) -> AsyncGenerator[Look, None]:
        """What there is now, and again at each announcement and at least each ``poll_s``. Ends by StoreError."""
        async with self._link.redis.pubsub() as changes:
            async with self._link.mapped():
                await changes.subscribe(CHANGES)
            while True:
                yield await self.read()
                async with self._link.mapped(poll_s + ANSWER_TIMEOUT_S):
                    await changes.get_message(ignore_subscribe_messages=True, timeout=poll_s)
