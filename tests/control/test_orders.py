"""Degrading on purpose through the admin API: what is taken, what is refused, and how it is shown."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from urllib.parse import quote

import pytest

from gateway.cli.degrade import degrade
from gateway.cli.explain import explain
from gateway.cli.local_user import local_user
from gateway.cli.restore import restore
from gateway.cli.status import status
from gateway.observe.actor import Actor
from gateway.policy.compiled import AdminToken, CompiledPolicy, ProviderStep, StaticStep, Step
from tests.control.conftest import House, run


@pytest.fixture
def house(house: House, policy: CompiledPolicy) -> House:
    house.take(policy)
    return house


@pytest.mark.parametrize(
    ("command", "arguments", "code", "words"),
    [
        (degrade, ("acmee", "--for", "10m"), 1, "Did you mean acme?"),
        (degrade, ("acme", "--for", "25h"), 2, "at most 24h"),
        (degrade, ("acme", "--for", "10"), 2, "such as 30m, 24h or 7d"),
        (degrade, ("acme", "--all", "--for", "1h"), 2, "name one customer, or give --all"),
        (degrade, ("--for", "1h"), 2, "name one customer, or give --all"),
        (degrade, ("acme",), 2, "--for"),
        (restore, ("globexx",), 1, "Customers: acme."),
        (restore, ("acme",), 0, "There was no order for acme."),
        (restore, ("--all",), 0, "There was no order."),
    ],
)
async def test_what_cannot_be_is_refused_with_words(
    house: House, url: str, command: object, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = await run(command, *arguments, "--url", url)  # type: ignore[arg-type]
    assert (result.exit_code, words in " ".join(result.output.split())) == (code, True), result.output
    assert not house.orders.standing()


async def test_who_is_degraded_by_whom_until_when_and_why_is_shown_everywhere(house: House, url: str) -> None:
    result = await run(degrade, "acme", "--for", "2h", "--reason", "v3 talks\nnonsense", "--url", url)
    assert result.exit_code == 0, result.output
    # A gateway without a store is one whose store is away.
    assert "it holds on the gateway that was asked alone" in result.stderr
    (standing,) = house.orders.standing()
    assert (standing.left_s, standing.order.reason) == (7200, "v3 talks nonsense")
    # The token is what was proven, the user what the command says.
    assert (standing.order.by, standing.order.user) == ("env", local_user())
    shown = await run(status, "--url", url)
    assert shown.exit_code == 1
    assert "acme is answered by the fallback until" in " ".join(shown.stdout.split())
    shown = await run(explain, "--customer", "acme", "--model", "acme_v3", "--url", url)
    assert "v3 talks nonsense" in " ".join(shown.stdout.split())
    async with house.client() as client:
        (order,) = (await client.get("/admin/orders")).json()["orders"]
    assert order == {
        "customer": "acme",
        "reason": "v3 talks nonsense",
        "by": "env",
        "user": local_user(),
        "since": standing.order.at_ms / 1000,
        "until": standing.order.until_ms / 1000,
        "left_s": 7200,
        "of": 1,
        **{kind: {"count": 0, "customers": []} for kind in ("unanswerable", "text_only", "boxes_only")},
    }
    assert order["until"] - order["since"] == 7200
    answer = json.loads((await run(restore, "acme", "--url", url, "--json")).stdout)
    assert (answer["changed"], answer["orders"]) == (True, [])
    assert [event.kind for event in house.events.since(0)] == ["alarm_on", "order_given", "alarm_off", "order_over"]
    for event in house.events.since(0):
        if event.kind.startswith("order_"):
            assert (event.fields["by"], event.fields["user"]) == ("env", local_user())
    assert [(entry.who, entry.user) for entry in house.audit.changes] == [("env", local_user())] * 2


def steps(policy: CompiledPolicy, **of_customers: tuple[Step, ...]) -> CompiledPolicy:
    """With these customers, each with such a fallback."""
    acme = policy.customers["acme"]
    return replace(policy, customers={n: replace(acme, name=n, steps=found) for n, found in of_customers.items()})


async def test_a_customer_whom_no_step_can_answer_is_not_said_to_be_degraded(
    house: House, policy: CompiledPolicy, url: str
) -> None:
    house.take(steps(policy, acme=()))
    result = await run(degrade, "acme", "--for", "2m", "--url", url)
    assert result.exit_code == 1
    assert "not degraded: acme: no step of the fallback can answer" in " ".join(result.stderr.split())
    assert "answered by the fallback" not in result.stdout
    assert (await run(degrade, "acme", "--for", "2m", "--url", url, "--json")).exit_code == 1
    shown = " ".join((await run(status, "--url", url)).stdout.split())
    assert "acme is not degraded, as no step of the fallback can answer; the order is until" in shown
    shown = await run(explain, "--customer", "acme", "--model", "acme_v3", "--url", url)
    assert "acme is not degraded, as no step of the fallback can answer" in " ".join(shown.stdout.split())


async def test_of_all_customers_those_whom_the_order_does_not_reach_or_in_part_are_named(
    house: House, policy: CompiledPolicy, url: str
) -> None:
    provider, base, text = policy.customers["acme"].steps
    assert isinstance(provider, ProviderStep)
    off = replace(provider, provider=replace(provider.provider, unavailable="HOSTED_KEY is not set"))
    house.take(
        steps(
            policy,
            whole=(provider,),
            tooled=(StaticStep("Later.", even_for_tools=True),),
            nobody=(),
            keyless=(off,),
            talker=(off, text),
            based=(base, text),
        )
    )
    result = await run(degrade, "--all", "--for", "2m", "--url", url)
    assert result.exit_code == 1
    assert "All customers but 2 are answered by the fallback for 2m from now on" in result.stdout
    said = " ".join(result.stderr.split())
    assert "not degraded: keyless, nobody: no step of the fallback can answer" in said
    assert "in part: talker: requests with tools or for JSON still get the own adapter" in said
    assert "by the boxes: based: the fallback is the base model on the boxes alone" in said
    shown = " ".join((await run(status, "--url", url)).stdout.split())
    assert "all customers but 2 are answered by the fallback until" in shown
    assert "not degraded, as no step of the fallback can answer: keyless, nobody" in shown


async def test_a_provider_without_a_known_price_does_not_count_for_a_customer_with_a_cap(
    house: House, policy: CompiledPolicy, url: str
) -> None:
    acme = policy.customers["acme"]
    house.take(replace(policy, customers={"acme": replace(acme, steps=acme.steps[:1], usd_per_day=5.0)}))
    assert (await run(degrade, "acme", "--for", "2m", "--url", url)).exit_code == 1


async def test_who_asks_is_the_tokens_name_whatever_the_client_says(house: House, policy: CompiledPolicy) -> None:
    token = AdminToken("robot", hashlib.sha256(b"fsa_robot").digest(), "write", None)
    house.take(replace(policy, admin_tokens={token.digest: token}))
    says = {"x-failsoft-user": quote("Änn\nroot")}
    async with house.client(token="fsa_robot") as client:
        for body in ({"customer": "acme", "for": "1h", "by": "boss"}, {"all": True, "for": "1h"}):
            answer = await client.post("/admin/degrade", json=body, headers=says)
            assert (answer.json()["order"]["by"], answer.json()["order"]["user"]) == ("robot", "Änn root")
        old = await client.post("/admin/degrade", json={"all": True, "for": "1h", "by": "boss"})
        assert (old.json()["order"]["by"], old.json()["order"]["user"]) == ("robot", "boss")
        await client.post("/admin/boxes/a/drain", headers=says)
        shown = (await client.get("/admin/status")).json()
        (box, *_) = [one for one in shown["boxes"] if one["name"] == "a"]
        assert (box["drained_by"], box["drained_user"]) == ("robot", "Änn root")
        await client.post("/admin/boxes/a/undrain", headers=says)
        box = (await client.get("/admin/boxes/a")).json()
        assert (box["drained_by"], box["drained_user"]) == ("", "")
        await client.post("/admin/restore", json={"all": True}, headers=says)
    told = [event for event in house.events.since(0) if event.kind.startswith(("order_", "box_"))]
    assert {event.fields["by"] for event in told} == {"robot"}
    assert {event.kind for event in told} == {"order_given", "order_over", "box_drained", "box_undrained"}
    assert {(entry.who, entry.user) for entry in house.audit.changes} == {("robot", "Änn root"), ("robot", "")}
    alarm_words = " ".join(str(event.fields) for event in house.events.since(0) if event.kind == "alarm_on")
    assert "by order of robot (Änn root)" in alarm_words


async def test_an_order_that_ends_by_itself_was_ended_by_nobody(house: House) -> None:
    await house.orders.degrade("acme", 60, reason="", actor=Actor("ops", "ann"))
    house.now += 61
    house.orders._changed()
    (over,) = [event for event in house.events.since(0) if event.kind == "order_over"]
    assert "by" not in over.fields


async def test_a_customer_is_told_that_the_order_for_all_still_holds(house: House, url: str) -> None:
    await run(degrade, "--all", "--for", "10m", "--url", url)
    result = await run(restore, "acme", "--url", url)
    assert "An order for all customers is still in force: failsoft restore --all ends it." in result.stdout


async def test_a_customer_that_left_the_policy_can_still_be_restored(house: House, url: str) -> None:
    await house.orders.degrade("gone", 600, reason="")
    assert (await run(restore, "gone", "--url", url)).exit_code == 0
    assert not house.orders.standing()


async def test_orders_ask_for_the_admin_token(house: House) -> None:
    async with house.client(token="wrong") as client:
        for path in ("/admin/degrade", "/admin/restore"):
            assert (await client.post(path, json={"all": True, "for": "1m"})).status_code == 401
    assert not house.orders.standing()


@pytest.mark.parametrize("body", [{"all": True, "for": "10"}, {"all": True}, {"for": "1m"}, {"all": 1, "for": "1m"}])
async def test_a_body_that_is_not_understood_is_a_400(house: House, body: dict[str, object]) -> None:
    async with house.client() as client:
        assert (await client.post("/admin/degrade", json=body)).status_code == 400
