"""Gateways on one store know how many they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.policy import replicas, standing
from gateway.policy.embedded import EmbeddedValkey
from gateway.policy.replicas import Heartbeat
from gateway.policy.standing import Standing
from gateway.policy.store import PolicyStore
from gateway.policy.versions import Head
from tests.policy.scenery import RecordedAlarms
from tests.support.eventually import eventually

Seen = list[tuple[int, int]]


class Gateways:
    """Heartbeats on one store; what each was told."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.beating: list[Heartbeat] = []
        self.alarms = RecordedAlarms()
        self.in_force: Head | None = None

    def start(self) -> tuple[Heartbeat, Seen]:
        seen: Seen = []
        name = f"host:{len(self.beating) + 1}"
        heartbeat = Heartbeat(
            PolicyStore(self._url),
            on_change=lambda alive, rank: seen.append((alive, rank)),
            uniform=lambda: 0.5,
            alarms=self.alarms,
            standing=lambda: Standing(name=name, pid=1, in_force=self.in_force),
        )
        heartbeat.start()
        self.beating.append(heartbeat)
        return heartbeat, seen


@pytest.fixture
async def gateways(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    monkeypatch.setattr(replicas, "BEAT_S", 0.05)
    monkeypatch.setattr(standing, "REPLICA_TTL_S", 0.5)
    started = Gateways(valkey.url)
    yield started
    for heartbeat in started.beating:
        await heartbeat.close()


async def test_each_hears_how_many_live_and_ranks_are_those_of_the_ids(gateways: Gateways) -> None:
    first, first_seen = gateways.start()
    await eventually(lambda: first_seen == [(1, 0)])
    second, second_seen = gateways.start()
    await eventually(lambda: second_seen and first_seen[-1][0] == second_seen[-1][0] == 2)
    by_id = sorted([(first.id, first_seen), (second.id, second_seen)])
    assert [seen[-1] for _, seen in by_id] == [(2, 0), (2, 1)]


async def test_one_that_ends_in_order_is_missed_at_once(gateways: Gateways) -> None:
    _, seen = gateways.start()
    second, _ = gateways.start()
    await eventually(lambda: seen and seen[-1][0] == 2)
    gateways.beating.remove(second)
    await second.close()
    await eventually(lambda: seen[-1] == (1, 0))


async def test_one_that_is_silent_is_missed_after_a_while(gateways: Gateways) -> None:
    _, seen = gateways.start()
    second, _ = gateways.start()
    await eventually(lambda: seen and seen[-1][0] == 2)
    await second._tasks.close()
    await eventually(lambda: seen[-1] == (1, 0))


async def test_while_the_store_is_away_the_last_number_stays(gateways: Gateways, valkey: EmbeddedValkey) -> None:
    _, seen = gateways.start()
    _, other = gateways.start()
    await eventually(lambda: seen and other and seen[-1][0] == other[-1][0] == 2)
    changes = len(seen), len(other)
    await valkey.stop()
    await asyncio.sleep(standing.REPLICA_TTL_S * 2)  # the time itself is what is tested
    assert (len(seen), len(other)) == changes
    await valkey.start()
    _, third = gateways.start()
    await eventually(lambda: third and third[-1][0] == 3)


async def test_nothing_is_left_in_the_store_when_all_have_ended(
    gateways: Gateways, valkey: EmbeddedValkey, store: PolicyStore
) -> None:
    first, seen = gateways.start()
    await eventually(lambda: bool(seen))
    gateways.beating.remove(first)
    await first.close()
    assert await store._redis.keys("{failsoft}:replica*") == []


async def test_what_has_changed_is_said_before_the_next_sign_of_life(
    gateways: Gateways, store: PolicyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "BEAT_S", 3600.0)
    monkeypatch.setattr(standing, "REPLICA_TTL_S", 60.0)
    heartbeat, seen = gateways.start()
    await eventually(lambda: bool(seen))
    gateways.in_force = Head("s", 7, "d")
    heartbeat.tell()
    await eventually(lambda: _versions(heartbeat) == [7])
    (replica,) = await store.replicas()
    assert (replica.name, replica.standing and replica.standing.in_force) == ("host:1", gateways.in_force)


async def test_a_gateway_of_another_release_lives_whatever_it_says(gateways: Gateways, store: PolicyStore) -> None:
    heartbeat, seen = gateways.start()
    await eventually(lambda: bool(seen))
    await store._redis.set(f"{{failsoft}}:replica:{heartbeat.id}", '{"something": "else"}')
    assert [replica.id for replica in await store.replicas()] == [heartbeat.id]


def _versions(heartbeat: Heartbeat) -> list[int | None]:
    standings = [replica.standing for replica in heartbeat.known]
    return [None if one is None or one.in_force is None else one.in_force.version for one in standings]
