"""Gateways on one store tell each other what ops have ordered."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

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


async def _stopped(url: str, folder: Path) -> None:
    """A gateway ordered that acme be degraded, and has ended."""
    gateway = Gateway()
    await gateway.orders.start(url, folder)
    await gateway.orders.degrade("acme", 600, reason="")
    await gateway.orders.close()


async def test_orders_on_disk_are_those_of_one_store(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    await _stopped(valkey.url, tmp_path)
    again, elsewhere = Gateway(), Gateway()
    # Nobody answers at either.
    await valkey.stop()
    await again.orders.start(valkey.url, tmp_path)
    await elsewhere.orders.start("redis://127.0.0.1:9", tmp_path)
    assert (again.targets, elsewhere.targets) == (["acme"], [])
    for gateway in (again, elsewhere):
        await gateway.orders.close()


async def test_an_order_from_disk_ends_by_the_clock_of_the_store_once_that_is_heard(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    await _stopped(valkey.url, tmp_path)
    file = tmp_path / "orders.snapshot"
    # As if this machine's clock had been put back by five minutes since.
    kept = json.loads(file.read_bytes())
    file.write_text(json.dumps({**kept, "ahead_ms": kept["ahead_ms"] - 300_000}))
    await valkey.stop()
    gateway = Gateway()
    await gateway.orders.start(valkey.url, tmp_path)
    assert gateway.orders.standing()[0].left_s > 800
    await valkey.start()
    await eventually(lambda: 590 < gateway.orders.standing()[0].left_s <= 600, within_s=10)
    await gateway.orders.close()


async def test_what_cannot_be_read_from_disk_or_written_there_is_an_alarm_and_stops_no_order(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "orders.snapshot").write_text("{")
    gateway = Gateway()
    await gateway.orders.start(valkey.url, folder)
    assert ("orders_snapshot", "orders") in gateway.alarmed
    await gateway.orders.degrade("acme", 600, reason="")
    assert ("orders_snapshot", "orders") not in gateway.alarmed
    shutil.rmtree(folder)
    await gateway.orders.degrade("globex", 600, reason="")
    assert ("orders_snapshot", "orders") in gateway.alarmed
    assert gateway.targets == ["acme", "globex"]
    await gateway.orders.close()
