"""The fleets: they follow the policy and keep what is known of a box that did not change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConnectError, ConnectionLost, Reason, UpstreamStatus
from gateway.fleet.fleet import Fleets
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import BoxSpec
from tests.fleet.conftest import StartBox
from tests.fleet.policies import compiled
from tests.fleet.token_box import SILENT, Watchers
from tests.transport.raw_server import until_true


def spec(name: str, **changes: object) -> BoxSpec:
    fields = {"name": name, "fleet": "main", "url": f"http://{name}:8000", "max_loras": 8, "max_cpu_loras": 64}
    return BoxSpec(**(fields | changes))  # type: ignore[arg-type]


def unprobed(metrics: GatewayMetrics, alarms: Alarms, events: Events) -> Fleets:
    return Fleets(metrics=metrics, alarms=alarms, events=events, probing=False)


@pytest.fixture
async def fleets(watchers: Watchers) -> AsyncIterator[Fleets]:
    fleets = unprobed(watchers.metrics, watchers.alarms, watchers.events)
    yield fleets
    await fleets.close()


async def test_boxes_keep_the_order_of_the_yaml(fleets: Fleets) -> None:
    fleets.follow(compiled(spec("b"), spec("a"), spec("c")))
    assert [box.name for box in fleets.boxes("main")] == ["b", "a", "c"]
    assert fleets.all() == fleets.boxes("main")
    assert fleets.boxes("gone") == ()
    assert fleets.boxes_for("gone", "acme_v3") == ()


async def test_a_box_that_did_not_change_keeps_what_is_known_of_it(fleets: Fleets) -> None:
    fleets.follow(compiled(spec("a"), spec("b")))
    a = fleets.boxes("main")[0]
    permit = a.admit("acme_v3", 0)
    assert permit is not None
    permit.failed(ConnectError("refused"), 0)
    fleets.follow(compiled(spec("b"), spec("a", max_loras=4)))
    assert fleets.boxes("main")[1] is a
    assert a.spec.max_loras == 4
    assert a.condition("acme_v3", 0) is Reason.CIRCUIT_OPEN


@pytest.mark.parametrize("change", [{"url": "http://elsewhere:8000"}, {"api_key": "new"}, {"unavailable": "no key"}])
async def test_a_box_at_another_address_or_with_another_key_is_another_box(
    fleets: Fleets, change: dict[str, object]
) -> None:
    fleets.follow(compiled(spec("a")))
    (before,) = fleets.all()
    fleets.follow(compiled(spec("a", **change)))
    (after,) = fleets.all()
    assert after is not before


async def test_a_new_base_model_makes_new_boxes(fleets: Fleets) -> None:
    fleets.follow(compiled(spec("a")))
    (before,) = fleets.all()
    fleets.follow(compiled(spec("a"), base_model="other"))
    (after,) = fleets.all()
    assert after is not before
    assert after.base_model == "other"


async def test_a_dropped_box_serves_its_requests_to_their_end(fleets: Fleets, start_box: StartBox) -> None:
    server = await start_box(SILENT)
    fleets.follow(compiled(server.spec("a"), spec("b")))
    a = fleets.boxes("main")[0]
    until = asyncio.get_running_loop().time() + 30
    asking = asyncio.get_running_loop().create_task(a.pool.exchange(a.head("/v1/x"), b"{}", until))
    await until_true(lambda: len(server.requests) == 1)
    fleets.follow(compiled(spec("b")))
    assert [box.name for box in fleets.all()] == ["b"]
    assert not asking.done()
    assert a.pool.open == 1
    await fleets.close()
    with pytest.raises(ConnectionLost):
        await asking


async def test_adapters_that_left_the_policy_are_forgotten(fleets: Fleets) -> None:
    fleets.follow(compiled(spec("a"), adapters=("acme_v3", "acme_v4")))
    (a,) = fleets.all()
    for adapter in ("acme_v3", "acme_v4"):
        permit = a.admit(adapter, 0)
        assert permit is not None
        permit.failed(UpstreamStatus(404), 0)
    fleets.follow(compiled(spec("a"), adapters=("acme_v4",)))
    assert a.pairs.missing().keys() == {"acme_v4"}


async def test_a_box_whose_key_is_not_set_raises_an_alarm_until_it_is(fleets: Fleets, watchers: Watchers) -> None:
    fleets.follow(compiled(spec("a", unavailable="${BOX_KEY} is not set"), spec("b")))
    (alarm,) = watchers.alarms.current()
    assert (alarm.kind, alarm.subject) == ("box_not_configured", "a")
    assert "BOX_KEY" in alarm.message
    assert fleets.boxes("main")[0].probed, "it never will be, so nobody is to wait for it"
    fleets.follow(compiled(spec("a", api_key="set"), spec("b")))
    assert watchers.alarms.current() == ()


async def test_metrics_show_the_boxes_of_the_policy_only(fleets: Fleets, watchers: Watchers) -> None:
    fleets.follow(compiled(spec("a"), spec("b")))
    permit = fleets.boxes("main")[0].admit("acme_v3", 0)
    text = watchers.registry.render().decode()
    assert 'failsoft_box_in_flight{box="a"} 1.0' in text
    assert 'failsoft_box_state{box="b",state="closed"} 1.0' in text
    assert 'failsoft_box_state{box="b",state="open"} 0.0' in text
    assert 'failsoft_pool_connections{state="idle",target="box:b"} 0.0' in text
    assert permit is not None
    permit.released()
    fleets.follow(compiled(spec("a")))
    text = watchers.registry.render().decode()
    assert 'box="b"' not in text
    assert "box:b" not in text


def orders(names: list[str], adapters: list[str]) -> dict[str, list[str]]:
    metrics, events = GatewayMetrics(Registry()), Events(10)
    fleets = unprobed(metrics, Alarms(metrics, events), events)
    fleets.follow(compiled(*(spec(name) for name in names)))
    return {adapter: [box.name for box in fleets.boxes_for("main", adapter)] for adapter in adapters}


@given(st.permutations([f"box-{n}" for n in range(5)]), st.integers(0, 4))
def test_an_adapter_keeps_its_order_of_boxes_whatever_comes_or_goes(names: list[str], gone: int) -> None:
    adapters = [f"adapter-{n}" for n in range(20)]
    before = orders(sorted(names), adapters)
    left = [name for i, name in enumerate(names) if i != gone]
    after = orders(left, adapters)
    for adapter in adapters:
        assert after[adapter] == [name for name in before[adapter] if name in left]


def test_adapters_are_spread_over_the_boxes() -> None:
    firsts = [order[0] for order in orders(["a", "b", "c", "d"], [f"adapter-{n}" for n in range(400)]).values()]
    assert all(60 <= firsts.count(name) <= 140 for name in "abcd")
