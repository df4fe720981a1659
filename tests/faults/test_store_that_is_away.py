"""Redis dies, is emptied, or is not there when the gateway starts: clients are answered as before."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from gateway.tasks import TaskSet
from tests.faults.house import House
from tests.faults.invariants import Weather
from tests.support.eventually import eventually

AWAY = "policy_store_away"
EMPTY = "policy_store_empty"
BOTH = frozenset({"box-a", "box-b"})

QUIET_S = 1.0
"""In which it is counted what Redis hears without any request."""


async def test_case_35_nobody_notices_that_redis_is_killed_and_it_is_followed_again_when_it_is_back(
    house: House,
) -> None:
    gateway = house.gateway
    before = gateway.status()["policy"]

    async def nemesis() -> None:
        house.store.process.kill()
        await eventually(lambda: AWAY in gateway.alarms(), within_s=10)

    await house.judge(await house.traffic(nemesis), Weather())
    assert gateway.status()["policy"] == before
    house.store.process.start()
    await house.store.ready()
    await eventually(lambda: AWAY not in gateway.alarms(), within_s=15)
    version = await house.store.apply(house.policies)
    assert version == before["version"] + 1
    await eventually(lambda: gateway.status()["policy"]["version"] == version, within_s=15)
    await house.judge(await house.crowd(), Weather())


async def test_case_35_the_boxes_may_die_while_redis_is_away(house: House) -> None:
    house.store.process.kill()
    with house.broken(BOTH, {"fault": "refuse"}):
        asked = await house.crowd()
    await house.judge(asked, Weather(boxes=BOTH, reasons=frozenset({"backend_down", "circuit_open"})))


async def test_case_36_an_emptied_redis_is_not_read_as_no_policy(house: House) -> None:
    gateway = house.gateway

    async def nemesis() -> None:
        await house.store.flush()
        await eventually(lambda: EMPTY in gateway.alarms(), within_s=10)

    await house.judge(await house.traffic(nemesis), Weather())
    await house.store.apply(house.policies)
    await eventually(lambda: EMPTY not in gateway.alarms(), within_s=15)
    await house.judge(await house.crowd(), Weather())


async def test_case_40_a_gateway_that_starts_again_with_redis_away_serves_on_by_what_it_knew(house: House) -> None:
    gateway = house.gateway
    before = gateway.status()["policy"]
    house.store.process.kill()
    gateway.process.kill()
    gateway.start_again()
    await gateway.ready()
    await house.judge(await house.crowd(times=2), Weather())
    after = gateway.status()["policy"]
    assert (after["version"], after["store_id"]) == (before["version"], before["store_id"])
    assert after["from_snapshot"]
    assert AWAY in gateway.alarms()
    readiness = gateway.readiness()
    assert readiness["ready"]
    assert readiness["policy_from_snapshot"]
    assert AWAY in readiness["policy_alarms"]
    house.store.process.start()
    await eventually(lambda: not gateway.status()["policy"]["from_snapshot"], within_s=15)
    await house.judge(await house.crowd(), Weather())


READ_ONLY = "policy_store_read_only"


@pytest.mark.parametrize(
    ("refuse", "allow"),
    [
        (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["too few replicas", "out of memory", "a replica"],
)
async def test_a_redis_that_takes_no_writes_is_followed_and_an_alarm_says_so(
    house: House, refuse: tuple[str, ...], allow: tuple[str, ...]
) -> None:
    gateway = house.gateway
    before = gateway.status()["policy"]

    async def nemesis() -> None:
        await house.store.ask(*refuse)
        await eventually(lambda: READ_ONLY in gateway.alarms(), within_s=10)

    try:
        await house.judge(await house.traffic(nemesis), Weather())
        assert gateway.status()["policy"] == before
        assert f'failsoft_alarm{{kind="{READ_ONLY}",subject="policies"}} 1.0' in gateway.metrics()
        assert READ_ONLY in gateway.readiness()["policy_alarms"]
        assert gateway.readiness()["ready"]
    finally:
        await house.store.ask(*allow)
    await eventually(lambda: READ_ONLY not in gateway.alarms(), within_s=10)
    version = await house.store.apply(house.policies)
    await eventually(lambda: gateway.status()["policy"]["version"] == version, within_s=15)


async def test_a_redis_that_hangs_holds_up_no_request(house: House) -> None:
    gateway = house.gateway

    async def nemesis() -> None:
        house.store.process.freeze()
        await eventually(lambda: AWAY in gateway.alarms(), within_s=15)

    try:
        await house.judge(await house.traffic(nemesis), Weather())
    finally:
        house.store.process.thaw()
    await eventually(lambda: AWAY not in gateway.alarms(), within_s=15)


async def test_no_request_asks_redis_anything(house: House) -> None:
    heard = 0
    async with Redis.from_url(house.store.url) as redis, redis.monitor() as monitor:
        tasks = TaskSet()

        async def listen() -> None:
            nonlocal heard
            async for _ in monitor.listen():
                heard += 1

        tasks.spawn(listen(), name="monitor")
        # It is heard at all, and what the gateway tells and asks beside requests.
        await house.store.ask("PING")
        await eventually(lambda: heard > 0)
        quiet_since, before = time.monotonic(), heard
        await asyncio.sleep(QUIET_S)
        beside = (heard - before) / (time.monotonic() - quiet_since)
        began, before = time.monotonic(), heard
        # One crowd after the other: a burst would teach the gateway how much its boxes bear, for the tests that follow.
        asked = [one for _ in range(15) for one in await house.crowd()]
        expected = beside * (time.monotonic() - began)
        await tasks.close()
    await house.judge(asked, Weather())
    more = heard - before - expected
    assert more < len(asked) / 3, f"{more:.0f} commands more than else while {len(asked)} requests were answered"
