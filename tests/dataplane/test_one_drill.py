"""A drill goes the way of a degraded request, and looks at the answer as an agent would."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.accounts.accounts import Accounts
from gateway.accounts.usage import SYNTHETIC_DRILL
from gateway.dataplane.accounting import CAP_SPENT, FULL, Accounting
from gateway.dataplane.attempt import Asker
from gateway.drills.drill import Prover
from gateway.drills.target import Target, targets_of
from gateway.policy.compiled import BaseStep, CompiledPolicy, Price, ProviderStep
from tests.dataplane.conftest import ServePlane, StartScripted
from tests.dataplane.plane import PROVIDER_KEY, Plane, compiled, provider_step
from tests.dataplane.scripted_box import END, STREAM_HEAD, chunked
from tests.support.eventually import eventually
from tests.support.processes import Simulator
from tests.support.streams import DONE, choice, event


def prover(plane: Plane, books: Accounts | None = None) -> Prover:
    books = Accounts(plane.metrics) if books is None else books
    return Prover(Asker(plane.providers, plane.hosted), plane.fleets, Accounting(books, plane.metrics))


def target(plane: Plane) -> Target:
    (found,) = targets_of(plane.current).values()
    return found


async def test_the_provider_is_asked_as_the_step_says_and_no_customer_is_charged(
    serve: ServePlane, hosted: Simulator
) -> None:
    drop = frozenset({"max_tokens"})
    step = provider_step(hosted.url, asked="openai/other-mini", system_prompt="As Acme.", drop=drop)
    plane = await serve([], step)
    outcome = await prover(plane).prove(target(plane))
    assert (outcome.error, outcome.model) == ("", "other-mini")
    assert outcome.first_content_ms is not None
    (asked,) = hosted.admin.requests()
    assert asked["body"]["messages"][0]["content"] == "As Acme."
    assert "max_tokens" not in asked["body"]
    assert dict(asked["headers"])["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert list(plane.metrics.requests.items()) == []
    assert plane.idle
    assert all(pool.in_use == 0 for pool in plane.providers._pools.values())


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (
            [event(choice(role="assistant", content="")), event(choice(finish="stop")), DONE],
            "an answer without content",
        ),
        ([event(choice(role="assistant", content="ok"))], "the stream ended without a finish_reason"),
        ([event(choice(content="ok")), b'data: {"error": {"message": "overloaded"}}\n\n', DONE], "overloaded"),
    ],
)
async def test_an_answer_that_an_agent_could_not_use_is_a_failed_drill(
    serve: ServePlane, scripted: StartScripted, frames: list[bytes], error: str
) -> None:
    provider = await scripted(STREAM_HEAD, *(chunked(frame) for frame in frames), END)
    plane = await serve([], provider_step(provider.url))
    outcome = await prover(plane).prove(target(plane))
    assert error in outcome.error
    assert (outcome.model, outcome.first_content_ms) == ("", None)


async def test_failed_drills_open_the_providers_breaker_and_a_good_one_closes_it(
    serve: ServePlane, hosted: Simulator
) -> None:
    hosted.admin.fault("status", status=500, message="broken")
    step = provider_step(hosted.url)
    plane = await serve([], step)
    health = plane.hosted.of(step.provider)
    outcomes = [(await prover(plane).prove(target(plane))).error for _ in range(4)]
    assert outcomes[:3] == ["status 500"] * 3
    # While it is open nobody asks, and that is no proof either.
    assert outcomes[3] == "not asked: circuit open"
    assert not health.breaker.closed
    hosted.admin.heal()
    health.breaker._open_for_s = 0.0
    assert (await prover(plane).prove(target(plane))).error == ""
    assert health.breaker.closed


async def test_the_base_is_tried_on_a_box_that_may_be_asked(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes, BaseStep())
    assert (await prover(plane).prove(target(plane))).error == ""
    (asked,) = [request for box in boxes for request in box.admin.requests() if request["path"].startswith("/v1/chat")]
    assert asked["body"]["model"] == "base"
    empty = await serve([], BaseStep())
    assert (await prover(empty).prove(target(empty))).error == "no box may be asked"


async def test_a_provider_that_is_not_configured_has_not_been_proven(serve: ServePlane, hosted: Simulator) -> None:
    step = provider_step(hosted.url)
    broken = ProviderStep(replace(step.provider, unavailable="KEY is not set"), step.model)
    plane = await serve([], broken)
    assert "KEY is not set" in (await prover(plane).prove(target(plane))).error
    assert hosted.admin.requests() == []


PRICE = Price(1e-6, 2e-6, 0.5e-6)


def capped(step: ProviderStep, *names: str) -> CompiledPolicy:
    """A policy in which the customers of these names may spend no more than a dollar a day."""
    policy = compiled([], [step])
    customers = {
        name: replace(one, usd_per_day=1.0 if name in names else None) for name, one in policy.customers.items()
    }
    return replace(policy, customers=customers)


async def test_what_a_drill_takes_is_in_the_accounts_of_the_customer_in_whose_name_it_is_under_a_reason_of_its_own(
    serve: ServePlane, hosted: Simulator
) -> None:
    step = provider_step(hosted.url, price=PRICE)
    policy = compiled([], [step])
    plane = await serve(policy=policy)
    books = Accounts(plane.metrics)
    asked = prover(plane, books)
    for payer in (policy.customers["globex"], None):
        assert (await asked.prove(target(plane), payer)).error == ""
    assert {key[:2] for key in books.usage.total} == {("globex", "provider:hosted"), ("acme", "provider:hosted")}
    for name in ("globex", "acme"):
        requests, prompt, completion, _, nano_usd, estimated, _ = books.usage.total[
            name, "provider:hosted", SYNTHETIC_DRILL
        ]
        assert (requests, estimated) == (1, 0)
        assert prompt > 0
        assert completion > 0
        assert books.spent(name) == nano_usd == prompt * 1000 + completion * 2000
    # What requests take is not learned from drills.
    assert all(habit.prompt(1000) == 250 for habit in books.habits.values())


async def test_a_drill_of_the_base_is_counted_too_and_costs_nothing(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes, BaseStep())
    books = Accounts(plane.metrics)
    assert (await prover(plane, books).prove(target(plane))).error == ""
    ((key, cell),) = books.usage.total.items()
    assert key == ("acme", "base", SYNTHETIC_DRILL)
    assert cell[0] == 1
    assert cell[2] > 0
    assert books.spent("acme") == 0


async def test_a_drill_that_breaks_off_is_counted_by_estimate(serve: ServePlane, scripted: StartScripted) -> None:
    frames = (event(choice(role="assistant", content="")), event(choice(content="ok")))
    provider = await scripted(STREAM_HEAD, *(chunked(frame) for frame in frames), END)
    plane = await serve([], provider_step(provider.url, price=PRICE))
    books = Accounts(plane.metrics)
    assert (await prover(plane, books).prove(target(plane))).error
    cell = books.usage.total["acme", "provider:hosted", SYNTHETIC_DRILL]
    assert (cell[0], cell[5]) == (1, 1)
    assert books.spent("acme") == cell[4] > 0
    assert books.usage.committed("acme") == books.spent("acme")


async def test_a_spent_cap_holds_a_drill_back_and_another_customer_that_shares_the_step_pays(
    serve: ServePlane, hosted: Simulator
) -> None:
    step = provider_step(hosted.url, price=PRICE)
    plane = await serve(policy=capped(step, "acme", "globex"))
    books = Accounts(plane.metrics)
    asked = prover(plane, books)
    books.usage.spend("acme", 10**9)
    # Acme is in whose name it would be tried, were it not for its cap.
    assert target(plane).customer.name == "acme"
    assert (await asked.prove(target(plane))).error == ""
    assert [key[0] for key in books.usage.total] == ["globex"]
    hosted.admin.forget()
    # Who asks for it pays for it.
    outcome = await asked.prove(target(plane), plane.current.customers["acme"])
    assert (outcome.held_back, outcome.error, outcome.model) == (CAP_SPENT, "", "")
    books.usage.spend("globex", 10**9)
    assert (await asked.prove(target(plane))).held_back == CAP_SPENT
    assert hosted.admin.requests() == []
    # Nothing is known of a provider that nobody asked.
    assert plane.hosted.of(step.provider).breaker.closed


async def test_a_drill_takes_one_of_the_places_at_a_provider_and_is_held_back_where_there_is_none(
    serve: ServePlane, scripted: StartScripted
) -> None:
    held_open = asyncio.Event()
    frames = [event(choice(role="assistant", content="ok")), event(choice(finish="stop")), DONE]
    provider = await scripted(STREAM_HEAD, held_open, *(chunked(frame) for frame in frames), END)
    step = provider_step(provider.url)
    step = replace(step, provider=replace(step.provider, max_concurrency=1))
    plane = await serve([], step)
    asked = prover(plane)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(asked.prove(target(plane)))
        await eventually(lambda: len(provider.requests) == 1)
        second = await asked.prove(target(plane))
        held_open.set()
    assert (first.result().error, first.result().held_back) == ("", "")
    assert (second.error, second.held_back) == ("", FULL)
    assert (await asked.prove(target(plane))).held_back == ""
