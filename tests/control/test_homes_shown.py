"""Where adapters live, and why a request goes elsewhere: in the admin API, the metrics and the commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from gateway.cli.explain import explain
from gateway.cli.status import status
from gateway.fleet.box import Box
from gateway.fleet.homes import Homes
from gateway.fleet.rendezvous import rendezvous
from gateway.policy.compiled import BoxSpec
from tests.control.conftest import House, run
from tests.fleet.policies import compiled

HOT = "hot"
COLD = tuple(f"cold-{number}" for number in range(6))
SLOTS = 2


@pytest.fixture
def house(house: House) -> House:
    boxes = [BoxSpec(name, "main", f"http://{name}:8000", SLOTS, 64) for name in ("a", "b")]
    house.take(compiled(*boxes, adapters=(HOT, *COLD)))
    return house


@pytest.fixture
def homes(house: House) -> Homes:
    return house.fleets.homes["main"]


async def measure(house: House, requests: dict[str, int]) -> None:
    """So many requests come within a minute, and their adapters are placed by that."""
    homes = house.fleets.homes["main"]
    for adapter, count in requests.items():
        for _ in range(count):
            homes.boxes_for(adapter)
    house.now += 60
    await homes.rebalance()


async def seen(house: House) -> dict[str, Any]:
    async with house.client() as client:
        found: dict[str, Any] = (await client.get("/admin/status")).json()
    return found


async def explained(house: House, adapter: str) -> dict[str, Any]:
    async with house.client() as client:
        answer = await client.get("/admin/explain", params={"customer": "acme", "model": adapter})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def where(found: dict[str, Any]) -> dict[str, list[str]]:
    """The homes of each adapter."""
    homes: dict[str, list[str]] = {}
    for box in found["boxes"]:
        for one in box["home_of"]:
            homes.setdefault(one["adapter"], []).append(box["name"])
    return homes


@contextmanager
def in_flight(house: House, box: Box, *adapters: str, answered: bool = True) -> Iterator[None]:
    """Requests for ``adapters`` run at the box."""
    with ExitStack() as stack:
        for adapter in adapters:
            permit = box.admit(adapter, house.now, streamed=True)
            assert permit is not None
            stack.enter_context(permit)
            if answered:
                permit.succeeded(house.now)
        yield


def boxes(house: House, adapter: str) -> tuple[Box, Box]:
    """Its home, and the other one."""
    first, second = house.fleets.look("main", adapter).boxes
    return first, second


async def test_before_anything_was_measured_everybody_is_where_rendezvous_hashing_has_it(house: House) -> None:
    found = await seen(house)
    assert where(found) == {adapter: [rendezvous(adapter, "ab")[0]] for adapter in (HOT, *COLD)}
    assert {one["requests_per_s"] for box in found["boxes"] for one in box["home_of"]} == {None}
    assert found["fleets"] == [
        {
            "name": "main",
            "placed_by": "rendezvous",
            "placed_s_ago": None,
            "requests_seen": 0,
            "requests_needed": 200,
            "requests_per_s": None,
            "predicted_swaps_per_s": None,
        }
    ]
    assert "failsoft_fleet_predicted_lora_swaps_per_second{" not in house.registry.render().decode()


async def test_with_too_few_requests_the_homes_stay_but_the_rates_are_shown(house: House) -> None:
    await measure(house, {HOT: 60, COLD[0]: 30})
    found = await seen(house)
    assert (found["fleets"][0]["placed_by"], found["fleets"][0]["requests_seen"]) == ("rendezvous", 81)
    rates = {one["adapter"]: one["requests_per_s"] for box in found["boxes"] for one in box["home_of"]}
    assert rates[HOT] == 2 * rates[COLD[0]] > rates[COLD[1]] == 0


async def test_measured_rates_give_homes_that_are_shown_with_their_requests_and_swaps(house: House) -> None:
    await measure(house, {HOT: 300} | dict.fromkeys(COLD, 100))
    house.now += 3
    found = await seen(house)
    (fleet,) = found["fleets"]
    assert (fleet["placed_by"], fleet["placed_s_ago"]) == ("rates", 3.0)
    assert fleet["requests_per_s"] == pytest.approx(15, rel=0.01)
    homes = where(found)
    assert homes[HOT] == ["a", "b"], "more than 0.4 of a box's fair share"
    assert all(len(homes[adapter]) == 1 for adapter in COLD)
    for box in found["boxes"]:
        rates = [one["requests_per_s"] for one in box["home_of"]]
        assert rates == sorted(rates, reverse=True)
        (hot,) = [one for one in box["home_of"] if one["adapter"] == HOT]
        assert (hot["homes"], hot["requests_per_s"]) == (2, pytest.approx(2.5, rel=0.01)), "half of five a second"
    # Four adapters take turns in the two slots of each box.
    assert fleet["predicted_swaps_per_s"] > 1
    text = house.registry.render().decode()
    (line,) = [line for line in text.splitlines() if line.startswith("failsoft_fleet_predicted_lora_swaps_per_second{")]
    assert line.startswith('failsoft_fleet_predicted_lora_swaps_per_second{fleet="main"} ')
    assert float(line.split()[-1]) == pytest.approx(fleet["predicted_swaps_per_s"], abs=1e-3)


async def test_an_adapter_is_shown_in_its_slot_once_a_request_went_there(house: House) -> None:
    home, _ = boxes(house, COLD[0])
    assert f'failsoft_box_lora_slots_held{{box="{home.name}"}} 0.0' in house.registry.render().decode()
    with in_flight(house, home, COLD[0]):
        pass
    shown = {
        one["adapter"]: one["in_slot"]
        for box in (await seen(house))["boxes"]
        for one in box["home_of"]
        if box["name"] == home.name
    }
    assert shown == {adapter: adapter == COLD[0] for adapter in shown}
    assert shown[COLD[0]]
    assert f'failsoft_box_lora_slots_held{{box="{home.name}"}} 1.0' in house.registry.render().decode()


async def test_one_box_shows_who_lives_there_as_the_status_does(house: House) -> None:
    await measure(house, {HOT: 300} | dict.fromkeys(COLD, 100))
    async with house.client() as client:
        one = (await client.get("/admin/boxes/b")).json()
    assert one["home_of"] == (await seen(house))["boxes"][1]["home_of"] != []


async def test_a_plan_says_where_the_adapter_lives_and_by_what(house: House) -> None:
    home, _ = boxes(house, COLD[0])
    found = await explained(house, COLD[0])
    assert found["homes"] == {
        "placed_by": "rendezvous",
        "boxes": [home.name],
        "first": home.name,
        "why_first": None,
    }
    assert [box["is_home"] for box in found["boxes"]] == [True, False]
    await measure(house, {HOT: 300} | dict.fromkeys(COLD, 100))
    assert (await explained(house, COLD[0]))["homes"]["placed_by"] == "rates"
    hot = (await explained(house, HOT))["homes"]
    assert (sorted(hot["boxes"]), hot["why_first"]) == (["a", "b"], None)


async def test_a_plan_says_that_another_box_has_the_adapter_in_a_slot_and_is_less_busy(house: House) -> None:
    await measure(house, dict.fromkeys(COLD, 100))
    home, other = boxes(house, COLD[0])
    with in_flight(house, other, COLD[0]):
        pass
    with in_flight(house, home, COLD[1], answered=False):
        found = await explained(house, COLD[0])
    assert found["attempts"][0]["served_by"] == f"box:{other.name}"
    assert found["homes"]["first"] == other.name
    assert found["homes"]["why_first"] == (
        f"{other.name} holds the adapter in a slot and is less busy than {home.name}, which does not hold it"
    )
    assert [box["is_home"] for box in found["boxes"]] == [False, True]


async def test_a_plan_says_that_the_home_has_no_free_slot(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.fleet.estimate.ASSUMED_DURATION_S", 0.1)
    await measure(house, dict.fromkeys(COLD, 100))
    home, other = boxes(house, COLD[0])
    with in_flight(house, home, COLD[1], COLD[2]):
        found = await explained(house, COLD[0])
    assert found["attempts"][0]["served_by"] == f"box:{other.name}"
    assert found["homes"]["why_first"] == (
        f"{home.name} comes before it, but: it has no free slot: adapters in flight there need all 2, "
        "and one more would wait"
    )


async def test_a_plan_says_that_the_home_may_not_be_asked(house: House) -> None:
    home, other = boxes(house, COLD[0])
    home.drain()
    found = (await explained(house, COLD[0]))["homes"]
    assert (found["boxes"], found["first"]) == ([home.name], other.name)
    assert found["why_first"] == f"{home.name} comes before it, but: an operator has drained it on this gateway"
    other.drain()
    found = (await explained(house, COLD[0]))["homes"]
    assert (found["first"], found["why_first"]) == (None, None)


async def test_status_shows_homes_on_the_screen(house: House, url: str) -> None:
    screen = (await run(status, "--url", url)).output
    assert "fleet main: adapters have homes by rendezvous hashing, until 200 requests were seen (now 0)" in screen
    await measure(house, {HOT: 300} | dict.fromkeys(COLD, 100))
    home = house.fleets.find("b")
    assert home is not None
    with in_flight(house, home, HOT):
        pass
    screen = (await run(status, "--url", url)).output
    assert re.search(
        r"by measured rates, worked out 0 s ago: 1\d\.\d\d requests and \d\.\d\d predicted swaps a second", screen
    )
    assert re.search(r"○ hot 2\.\d\d \(one of 2 homes\)", screen)
    assert re.search(r"● hot 2\.\d\d \(one of 2 homes\)", screen)
    assert "1 of 2" in screen


async def test_a_box_with_many_adapters_shows_the_busiest_and_how_many_more(house: House, url: str) -> None:
    many = tuple(f"one-{number:02}" for number in range(14))
    house.take(compiled(BoxSpec("a", "main", "http://a:8000", SLOTS, 64), adapters=many))
    screen = (await run(status, "--url", url)).output
    assert "○ one-09 and 4 more" in screen
    assert "one-10" not in screen


async def test_explain_shows_the_home_on_the_screen_and_why_another_goes_first(house: House, url: str) -> None:
    home, other = boxes(house, COLD[0])
    asking = ("--customer", "acme", "--model", COLD[0], "--url", url)
    screen = (await run(explain, *asking)).stdout
    assert f"home: {home.name}, by rendezvous hashing\n" in screen
    assert f"{home.name} (home)" in screen
    home.drain()
    screen = (await run(explain, *asking)).stdout
    assert f"{other.name} goes first: {home.name} comes before it, but: an operator has drained it" in screen


async def test_looking_is_no_traffic(house: House, homes: Homes) -> None:
    for _ in range(300):
        house.explain(house.current.customers["acme"], HOT, stream=True, now=house.now)  # type: ignore[union-attr]
    await seen(house)
    await measure(house, {})
    assert (homes.requests_seen, homes.placement) == (0, None)
