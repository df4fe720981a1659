"""Gateways on one store tell each other what ops have ordered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from gateway.observe.actor import Actor
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.orders.keeper import OrderKeeper
from gateway.orders.order import ALL
from gateway.orders.order_store import ORDERS_KEY
from gateway.policy.embedded import EmbeddedValkey
from tests.support.eventually import eventually


class Gateway:
    """All that a keeper needs and tells."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.metrics, self.events = GatewayMetrics(self.registry), Events()
        self.alarms = Alarms(self.metrics, self.events)
        self.orders = OrderKeeper(metrics=self.metrics, alarms=self.alarms, events=self.events)

    @property
    def targets(self) -> list[str]:
        return list(self.orders.forced.ends)

    @property
    def alarmed(self) -> list[tuple[str, str]]:
        return [(alarm.kind, alarm.subject) for alarm in self.alarms.current()]


Start = Callable[[], Awaitable[Gateway]]


@pytest.fixture
async def start(valkey: EmbeddedValkey) -> AsyncIterator[Start]:
    started: list[Gateway] = []

    async def one() -> Gateway:
        gateway = Gateway()
        started.append(gateway)
        await gateway.orders.start(valkey.url)
        return gateway

    yield one
    for gateway in started:
        await gateway.orders.close()


async def test_an_order_for_all_ends_by_itself_on_every_gateway_and_one_for_a_customer_goes_on(start: Start) -> None:
    first, second = await start(), await start()
    order, shared = await first.orders.degrade("acme", 600, reason="why", actor=Actor("ops", "ann"))
    assert shared
    await second.orders.degrade(ALL, 0.4, reason="")
    for gateway in (first, second):
        await eventually(lambda gateway=gateway: gateway.targets == [ALL, "acme"])  # type: ignore[misc]
        assert sorted(gateway.alarmed) == [("degraded_by_order", "acme"), ("degraded_by_order", "all customers")]
    for gateway in (first, second):
        await eventually(lambda gateway=gateway: gateway.targets == ["acme"])  # type: ignore[misc]
        assert gateway.alarmed == [("degraded_by_order", "acme")]
    assert [one.order for one in second.orders.standing()] == [order]
    assert 'failsoft_order_seconds_left{customer="acme"}' in second.registry.render().decode()


async def test_the_store_forgets_by_itself_what_is_over(start: Start, valkey: EmbeddedValkey) -> None:
    gateway = await start()
    await gateway.orders.degrade("acme", 0.3, reason="")
    async with Redis.from_url(valkey.url) as client:
        assert await client.hlen(ORDERS_KEY) == 1
        await eventually(lambda: not gateway.targets)
        async with asyncio.timeout(5):
            while await client.exists(ORDERS_KEY):  # noqa: ASYNC110  # another process sets no event
                await asyncio.sleep(0.01)


async def test_what_is_no_order_alarms_and_takes_nothing_back(start: Start, valkey: EmbeddedValkey) -> None:
    first, second = await start(), await start()
    await first.orders.degrade("acme", 600, reason="")
    await eventually(lambda: second.targets == ["acme"])
    async with Redis.from_url(valkey.url) as client:
        await client.hset(ORDERS_KEY, "globex", "no order")
        await eventually(lambda: ("orders_unreadable", "orders") in second.alarmed)
        assert second.targets == ["acme"]
        await client.hdel(ORDERS_KEY, "globex")
    await eventually(lambda: ("orders_unreadable", "orders") not in second.alarmed)


async def test_a_restore_while_the_store_is_away_is_shared_when_it_is_back(
    start: Start, valkey: EmbeddedValkey
) -> None:
    first, second = await start(), await start()
    await first.orders.degrade("acme", 600, reason="")
    await eventually(lambda: second.targets == ["acme"])
    await valkey.stop()
    ended, shared = await second.orders.restore("acme")
    assert ([order.target for order in ended], shared) == (["acme"], False)
    assert (first.targets, second.targets) == (["acme"], [])
    await valkey.start()
    await eventually(lambda: not first.targets)
    assert not second.targets
