"""`failsoft explain` and `/admin/explain`: the plan that would be made now, every number in it, and nothing changed."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import Any

import pytest

from gateway.cli.explain import explain
from gateway.errors import ConnectError, UpstreamStatus
from gateway.fleet.box import Box
from gateway.fleet.engine_metrics import EngineReading
from gateway.policy.alias import Alias, named_conversation
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, ProviderStep
from tests.control.conftest import House, run

ASK = {"customer": "acme", "model": "acme_v3"}


@pytest.fixture
def house(house: House, policy: CompiledPolicy) -> House:
    house.take(policy)
    return house


@pytest.fixture
def boxes(house: House) -> tuple[Box, ...]:
    """In the order in which ``acme_v3`` prefers them."""
    return house.fleets.boxes_for("main", "acme_v3")


async def ask(house: House, **query: str) -> dict[str, Any]:
    async with house.client() as client:
        answer = await client.get("/admin/explain", params=ASK | query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


def served_by(found: dict[str, Any]) -> list[str]:
    return [attempt["served_by"] for attempt in found["attempts"]]


def with_acme(policy: CompiledPolicy, **changes: Any) -> CompiledPolicy:
    acme: CustomerPolicy = replace(policy.customers["acme"], **changes)
    return replace(policy, customers={"acme": acme}, version=2)


def slow(house: House, box: Box) -> None:
    """The box sleeps, as its metrics say, so that its first token is an hour away."""
    box.load.read(EngineReading(house.now, asleep=True))


async def test_all_well_it_is_the_boxes_in_their_order_then_the_fallback_with_their_times(
    house: House, boxes: tuple[Box, ...]
) -> None:
    found = await ask(house)
    first, second = (box.name for box in boxes)
    assert served_by(found) == [
        f"box:{first}",
        f"box:{second}",
        "provider:hosted",
        f"base:{first}",
        f"base:{second}",
        "static",
    ]
    assert (found["policy_version"], found["degraded_reason"], found["left_out"]) == (1, None, [])
    own, other, hosted, base, _, static = found["attempts"]
    # ttft_budget 2 s, deadline 60 s; the provider leaves half of what is left to what stands behind it.
    assert [attempt["limit_s"] for attempt in (own, other, hosted, base)] == [2.0, 2.0, 30.0, 2.0]
    assert [attempt["at_the_latest_s"] for attempt in (own, other, hosted)] == [[0, 2.0], [2.0, 4.0], [4.0, 32.0]]
    # Boxes that were silent are not asked for the base.
    assert base["at_the_latest_s"] is None
    assert (static["limit_s"], static["at_the_latest_s"]) == (None, [32.0, 32.0])
    assert "tools" in static["notes"][0]


async def test_every_number_of_a_box_is_there(house: House, boxes: tuple[Box, ...]) -> None:
    box = boxes[0]
    permits = [box.admit(adapter, house.now, streamed=True) for adapter in ("acme_v4", "acme_v4", None)]
    assert permits[0] is not None
    house.now += 0.25
    permits[0].succeeded(house.now)
    (seen, _) = (await ask(house))["boxes"]
    assert seen == {
        "name": box.name,
        "role": "own",
        "is_home": True,
        "condition": None,
        "why_not": None,
        "unavailable": None,
        "breaker": {"state": "closed", "retry_in_s": None},
        "fails_fast": True,
        "adapter": {"state": "ok", "retry_in_s": None},
        "drained": False,
        "in_ramp": False,
        "has_its_share": False,
        "in_flight": {"total": 3, "silent": 2, "by_adapter": {"acme_v4": 2}, "base": 1},
        "concurrency_limit": 256,
        "estimate": {
            "ttft_s": 0.3,
            "parts": {
                "silent": 2,
                "per_silent_s": 0.0,
                "ahead_s": 0.0,
                "adapters_in_flight": 1,
                "load_s": 0.05,
                "base_s": 0.25,
                "recent_s": 0.25,
            },
        },
        "budget_s": 2,
        "saturated": False,
        "over_limit": False,
        "saturated_for_s": None,
        "slots": {"of": 8, "held": ["acme_v4"], "holds_it": False},
    }
    for permit in permits:
        assert permit is not None
        permit.released()


async def test_a_plain_request_has_its_own_budgets(house: House) -> None:
    found = await ask(house, stream="false")
    assert (found["stream"], found["first_token_budget_s"]) == (False, 15.0)
    assert found["attempts"][0]["limit_s"] == 15.0


async def test_what_is_left_out_is_named_with_why(house: House, boxes: tuple[Box, ...], policy: CompiledPolicy) -> None:
    first, second = boxes
    first.drain()
    slow(house, second)
    found = await ask(house)
    assert served_by(found)[0] == "provider:hosted"
    assert found["degraded_reason"] == "forced"
    assert found["left_out"] == [
        f"box:{first.name}: an operator has drained it on this gateway",
        f"box:{second.name}: only as the last resort: its first token is expected after 3600.00 s, "
        "and the budget is 2 s",
    ]
    assert [box["role"] for box in found["boxes"]] == ["left_out", "last_resort"]
    house.take(with_acme(policy, steps=(), hosted_allowed=False))
    found = await ask(house)
    assert served_by(found) == [f"box:{second.name}"], "waiting is better than an error"
    assert found["left_out"][1:] == [
        "fallback: the policy has no step that could be taken",
        "providers: hosted.allowed is false, so that every token stays on your own boxes",
    ]


async def test_a_box_with_an_open_circuit_and_one_that_lacks_the_adapter_say_so(
    house: House, boxes: tuple[Box, ...]
) -> None:
    first, second = boxes
    for box, adapter, error in [(first, None, UpstreamStatus(500))] * 3 + [(second, "acme_v3", UpstreamStatus(404))]:
        permit = box.admit(adapter, house.now)
        assert permit is not None
        permit.failed(error, house.now)
    house.now += 0.25
    found = await ask(house)
    assert found["degraded_reason"] == "adapter_unavailable"
    assert [box["why_not"] for box in found["boxes"]] == [
        "its circuit is open (status 500); it is tried again in 0.8 s",
        "it said that it does not have the adapter; it is asked again in 0.8 s",
    ]
    assert found["boxes"][0]["breaker"] == {"state": "open", "retry_in_s": 0.75}
    assert found["boxes"][1]["adapter"] == {"state": "missing", "retry_in_s": 0.75}
    assert served_by(found)[0] == "provider:hosted"
    last = [attempt for attempt in found["attempts"] if attempt["forced"]]
    assert last == [], "static comes before, and cannot fail"


async def test_a_box_that_refused_and_one_whose_limit_is_reached_say_so(house: House, boxes: tuple[Box, ...]) -> None:
    first, second = boxes
    permit = first.admit("acme_v3", house.now)
    assert permit is not None
    permit.failed(ConnectError("refused"), house.now)
    running = [second.admit("acme_v4", house.now) for _ in range(256)]
    found = await ask(house)
    assert [box["why_not"] for box in found["boxes"]] == [
        "it was away (refused), and has shown no token since",
        "256 are in flight there, and its limit is 256",
    ]
    assert found["boxes"][1]["over_limit"]
    for permit in running:
        assert permit is not None
        permit.released()


async def test_a_provider_that_is_not_configured_and_steps_behind_a_static_text_are_named(
    house: House, policy: CompiledPolicy
) -> None:
    steps = policy.customers["acme"].steps
    assert isinstance(steps[0], ProviderStep)
    unset = replace(steps[0], provider=replace(steps[0].provider, unavailable="OPENAI_API_KEY is not set"))
    house.take(with_acme(policy, steps=(unset, steps[2], steps[1])))
    found = await ask(house)
    assert found["attempts"][2]["notes"] == ["will fail at once: OPENAI_API_KEY is not set"]
    assert "1 step behind static, which cannot fail" in found["left_out"]


async def test_a_spent_retry_budget_shows(house: House, boxes: tuple[Box, ...]) -> None:
    while house.retries.take(house.now):
        pass
    found = await ask(house)
    assert found["retries_left"] == 0
    assert served_by(found)[:2] == [f"box:{boxes[0].name}", "provider:hosted"]
    assert "no other box: the retry budget is spent" in found["left_out"]


async def test_looking_changes_nothing(house: House, boxes: tuple[Box, ...]) -> None:
    slow(house, boxes[0])
    permit = boxes[1].admit("acme_v3", house.now)
    assert permit is not None
    for _ in range(3):
        permit.box_permit.failed(house.now)
    house.now += 2  # a trial may be made now, and whoever looks must not take it
    left, newest = house.retries.left(house.now), house.events.newest

    def known() -> list[object]:
        return [
            (dict(box.load._saturations), box.in_flight, box.breaker.state(house.now), box.breaker._trial)
            for box in boxes
        ]

    before = known()
    first, again = await ask(house), await ask(house)
    assert first == again
    assert known() == before
    assert (house.retries.left(house.now), house.events.newest) == (left, newest)
    assert boxes[1].breaker.admits(house.now)
    permit.released()


@pytest.mark.parametrize(
    ("query", "param", "message"),
    [
        (
            {"customer": "acmee"},
            "customer",
            "There is no customer `acmee`. Did you mean acme? Customers: acme.",
        ),
        (
            {"model": "acme_v2"},
            "model",
            "`acme_v2` is no model of acme's. Did you mean acme_v4? Models of acme: acme_v3, acme_v4.",
        ),
    ],
)
async def test_an_unknown_customer_or_model_is_a_404_with_the_nearest_name_and_exit_code_one(
    house: House, url: str, query: dict[str, str], param: str, message: str
) -> None:
    async with house.client() as client:
        answer = await client.get("/admin/explain", params=ASK | query)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, f"{param}_not_found")
    assert error["message"].partition("Did")[0] == message.partition("Did")[0]
    asked = ASK | query
    result = await run(explain, "--customer", asked["customer"], "--model", asked["model"], "--url", url)
    assert result.exit_code == 1
    assert result.stderr == f"failsoft: {error['message']}\n"
    assert "Did you mean" in result.stderr


async def test_somebody_elses_model_is_named_as_theirs_to_an_operator(house: House, policy: CompiledPolicy) -> None:
    globex = replace(policy.customers["acme"], name="globex", adapters=frozenset({"globex_v1"}))
    house.take(replace(policy, customers={**policy.customers, "globex": globex}))
    async with house.client() as client:
        answer = await client.get("/admin/explain", params=ASK | {"model": "globex_v1"})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].startswith("`globex_v1` is globex's.")


@pytest.mark.parametrize(("query", "param"), [({"stream": "perhaps"}, "stream"), ({"model": None}, "model")])
async def test_a_question_that_makes_no_sense_is_refused_by_name(
    house: House, query: dict[str, Any], param: str
) -> None:
    asked = {name: value for name, value in (ASK | query).items() if value is not None}
    async with house.client() as client:
        answer = await client.get("/admin/explain", params=asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_before_the_first_policy_there_is_nothing_to_explain() -> None:
    house = House()
    async with house.client() as client:
        answer = await client.get("/admin/explain", params=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_policy")
    await house.fleets.close()


async def test_the_command_shows_it_at_one_glance(house: House, boxes: tuple[Box, ...], url: str) -> None:
    boxes[0].drain()
    result = await run(explain, "--customer", "acme", "--model", "acme_v3", "--url", url)
    assert result.exit_code == 0, result.output
    assert f"now: box:{boxes[1].name}" in result.stdout
    assert f"left out box:{boxes[0].name}: an operator has drained it on this gateway" in result.stdout
    assert "0 / 256" in result.stdout
    assert "provider:hosted" in result.stdout


async def test_the_command_says_what_would_degrade_and_when_nothing_is_left(
    house: House, boxes: tuple[Box, ...], policy: CompiledPolicy, url: str
) -> None:
    for box in boxes:
        box.drain()
    asking = ("--customer", "acme", "--model", "acme_v3", "--url", url)
    assert "now: provider:hosted, degraded: forced" in (await run(explain, *asking)).stdout
    house.take(with_acme(policy, steps=()))
    assert "now: a 503" in (await run(explain, *asking)).stdout


async def test_json_is_what_the_admin_api_says(house: House, url: str) -> None:
    result = await run(explain, "--customer", "acme", "--model", "acme_v3", "--plain", "--json", "--url", url)
    assert (result.exit_code, json.loads(result.stdout)) == (0, await ask(house, stream="false"))


async def test_no_gateway_is_three() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    assert (await run(explain, "--customer", "acme", "--model", "acme_v3", "--url", url)).exit_code == 3


def with_alias(policy: CompiledPolicy, target: str | dict[str, int]) -> CompiledPolicy:
    return with_acme(policy, aliases={"acme": Alias.of("acme", "acme", target)})


async def test_an_alias_is_explained_by_the_version_it_stands_for(house: House, policy: CompiledPolicy) -> None:
    house.take(with_alias(policy, "acme_v4"))
    found = await ask(house, model="acme")
    assert found["model"] == "acme"
    assert found["alias"] == {
        "name": "acme",
        "weights": {"acme_v4": 1},
        "adapter": "acme_v4",
        "chosen_by": "only",
        "conversation": None,
    }
    assert {attempt["adapter"] for attempt in found["attempts"] if attempt["kind"] == "own"} == {"acme_v4"}
    assert (await ask(house))["alias"] is None


async def test_of_an_alias_that_splits_a_conversation_is_shown_or_the_heaviest_version(
    house: House, policy: CompiledPolicy
) -> None:
    weights = {"acme_v3": 1, "acme_v4": 99}
    house.take(with_alias(policy, weights))
    found = await ask(house, model="acme")
    assert (found["alias"]["adapter"], found["alias"]["chosen_by"]) == ("acme_v4", "weight")
    alias = Alias.of("acme", "acme", weights)
    talk = next(name for name in map(str, range(1000)) if alias.versions(named_conversation(name))[0] == "acme_v3")
    found = await ask(house, model="acme", conversation=talk)
    assert (found["alias"]["adapter"], found["alias"]["conversation"]) == ("acme_v3", talk)


async def test_where_boxes_lack_the_version_the_other_is_in_the_plan_and_why(
    house: House, policy: CompiledPolicy, boxes: tuple[Box, ...]
) -> None:
    house.take(with_alias(policy, {"acme_v3": 1, "acme_v4": 99}))
    found = await ask(house, model="acme")
    own = [(one["adapter"], one["notes"]) for one in found["attempts"] if one["kind"] == "own"]
    stands_in = ["acme_v3 stands in, only where a box lacks acme_v4"]
    assert own == [("acme_v4", []), ("acme_v4", []), ("acme_v3", stands_in)]
    for box in house.fleets.boxes_for("main", "acme_v4"):
        permit = box.admit("acme_v4", house.now, streamed=True)
        assert permit is not None
        permit.failed(UpstreamStatus(404), house.now)
    found = await ask(house, model="acme")
    assert [one["adapter"] for one in found["attempts"]][:2] == ["acme_v3", "acme_v3"]
    assert found["degraded_reason"] is None
    assert [box["role"] for box in found["boxes"]] == ["last_resort", "last_resort"]


async def test_an_alias_that_nobody_has_is_told_with_the_nearest(house: House, policy: CompiledPolicy) -> None:
    house.take(with_alias(policy, "acme_v4"))
    async with house.client() as client:
        answer = await client.get("/admin/explain", params=ASK | {"model": "acmee"})
    assert answer.status_code == 404
    assert "Did you mean acme?" in answer.text
