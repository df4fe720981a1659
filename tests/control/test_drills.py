"""Drills by command: what is tried, how it is told, and what cannot be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.cli.drill import drill
from gateway.cli.status import status
from gateway.drills.drill import Outcome
from gateway.policy.compiled import CompiledPolicy, StaticStep
from tests.control.conftest import House, run


@pytest.fixture
def house(house: House, policy: CompiledPolicy) -> House:
    house.take(policy)
    return house


async def test_each_step_that_asks_anybody_is_tried_and_fixed_text_is_not(house: House, url: str) -> None:
    result = await run(drill, "acme", "--url", url, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["customer"], answer["ok"]) == ("acme", True)
    assert [(one["step"], one["model"], one["state"]) for one in answer["proofs"]] == [
        ("provider:hosted", "openai/gpt-4o-mini", "proven"),
        ("base:main", "base", "proven"),
    ]
    assert house.tried == ["provider:hosted", "base:main"]
    async with house.client() as client:
        of_acme = (await client.get("/admin/drills", params={"customer": "acme"})).json()
        overview = (await client.get("/admin/drills")).json()
    assert {one["step"] for one in of_acme["proofs"]} == {"provider:hosted", "base:main"}
    assert [(one["step"], one["proven"], one["customers"]) for one in overview["steps"]] == [
        ("base:main", 1, 1),
        ("provider:hosted", 1, 1),
    ]


async def test_a_failure_is_one_says_why_and_alarms_until_the_next_good_one(house: House, url: str) -> None:
    house.outcomes["provider:hosted"] = Outcome("status 401")
    result = await run(drill, "acme", "--provider", "hosted", "--url", url)
    assert result.exit_code == 1
    assert "status 401" in result.stdout
    assert house.tried == ["provider:hosted"]
    shown = await run(status, "--url", url)
    assert shown.exit_code == 1
    said = " ".join(shown.stdout.split())
    assert "1 failed" in said
    assert "the last try of provider:hosted failed, on which acme would fall back: status 401" in said
    house.outcomes.clear()
    assert (await run(drill, "acme", "--url", url)).exit_code == 0
    assert not [alarm for alarm in house.alarms.current() if alarm.kind == "drill_failed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("acmee",), "Did you mean acme?"),
        (("acme", "--provider", "hostd"), "Did you mean hosted?"),
    ],
)
async def test_what_there_is_not_is_named_with_what_there_is(
    house: House, url: str, arguments: tuple[str, ...], words: str
) -> None:
    result = await run(drill, *arguments, "--url", url)
    assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
    assert house.tried == []


async def test_where_nothing_asks_anybody_there_is_nothing_to_try_and_it_is_said_why(
    house: House, url: str, policy: CompiledPolicy
) -> None:
    acme = replace(policy.customers["acme"], steps=(StaticStep("later"),), hosted_allowed=False)
    house.take(replace(policy, customers={"acme": acme}))
    result = await run(drill, "acme", "--url", url)
    assert result.exit_code == 1
    assert "nothing in it asks anybody. Its policy keeps every token on your own boxes" in result.stderr
    assert house.tried == []


async def test_drills_ask_for_the_admin_token(house: House) -> None:
    async with house.client(token="wrong") as client:
        assert (await client.post("/admin/drills", json={"customer": "acme"})).status_code == 401
    assert house.tried == []
