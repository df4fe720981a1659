"""The homes of a fleet: today's order while little is known, then one by measured traffic."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.fleet.fleet import Fleets
from gateway.fleet.homes import LEAST_REQUESTS, Homes
from gateway.fleet.rendezvous import rendezvous
from gateway.policy.compiled import BoxSpec
from tests.fleet.policies import compiled
from tests.fleet.token_box import Watchers

ADAPTERS = [f"adapter-{number}" for number in range(12)]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def spec(name: str, **changes: object) -> BoxSpec:
    fields = {"name": name, "fleet": "main", "url": f"http://{name}:8000", "max_loras": 4, "max_cpu_loras": 64}
    return BoxSpec(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
async def fleets(watchers: Watchers) -> AsyncIterator[Fleets]:
    fleets = Fleets(metrics=watchers.metrics, alarms=watchers.alarms, events=watchers.events, probing=False)
    fleets.follow(compiled(spec("a"), spec("b")))
    yield fleets
    await fleets.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def homes(fleets: Fleets, clock: Clock) -> Homes:
    homes = Homes(clock=clock, uniform=lambda: 0.5)
    homes.follow(fleets.boxes("main"))
    return homes


async def ask(homes: Homes, clock: Clock, requests: int) -> None:
    for number in range(requests):
        homes.boxes_for(ADAPTERS[number % len(ADAPTERS)])
    clock.now += 30
    await homes.rebalance()


def order(homes: Homes, adapter: str) -> list[str]:
    return [box.name for box in homes.boxes_for(adapter)]


async def test_few_requests_leave_all_as_rendezvous_has_it(homes: Homes, clock: Clock) -> None:
    await ask(homes, clock, int(LEAST_REQUESTS) - 1)
    assert homes.placement is None
    assert all(order(homes, adapter) == list(rendezvous(adapter, "ab")) for adapter in ADAPTERS)


async def test_many_requests_give_homes_of_equal_load(homes: Homes, clock: Clock) -> None:
    await ask(homes, clock, 1200)
    firsts = [order(homes, adapter)[0] for adapter in ADAPTERS]
    assert firsts.count("a") == firsts.count("b") == 6


async def test_who_lived_on_a_box_that_left_is_sent_to_the_others_at_once(
    fleets: Fleets, homes: Homes, clock: Clock
) -> None:
    await ask(homes, clock, 1200)
    fleets.follow(compiled(spec("b"), spec("c")))
    homes.follow(fleets.boxes("main"))
    assert all(sorted(order(homes, adapter)) == ["b", "c"] for adapter in ADAPTERS)
    await ask(homes, clock, 1200)
    assert homes.placement is not None
    assert set(homes.placement.loads) == {"b", "c"}


async def test_a_box_that_is_not_configured_is_nobodys_home(fleets: Fleets, homes: Homes, clock: Clock) -> None:
    fleets.follow(compiled(spec("a"), spec("b", unavailable="no key")))
    homes.follow(fleets.boxes("main"))
    await ask(homes, clock, 1200)
    assert all(order(homes, adapter)[0] == "a" for adapter in ADAPTERS)
