"""Who finds no room at any box waits in the gateway, in sight of the budget; room goes by priority, and in fairness."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Any

import openai
import pytest

from gateway.fleet.concurrency_limit import ConcurrencyLimit
from gateway.policy.compiled import (
    ApiKey,
    BoxSpec,
    CompiledPolicy,
    CustomerPolicy,
    FleetSpec,
    ProviderStep,
    StaticStep,
    Step,
)
from tests.dataplane.conftest import ServePlane
from tests.dataplane.plane import Plane, provider_step
from tests.support.checker import check_error, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import Recording

LATER = StaticStep("We are in reduced mode.")
BUDGET_S = 1.0


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of boxes whose metrics nobody reads, as here: slots are expected to come free soon."""
    monkeypatch.setattr("gateway.fleet.estimate.ASSUMED_DURATION_S", 0.1)


@pytest.fixture(scope="module")
def box_process(session_processes: Processes) -> Simulator:
    box = session_processes.box(name="waiting", any_adapter=True, tokens=6)
    box.wait_ready()
    return box


@pytest.fixture
def box(box_process: Simulator) -> Simulator:
    box_process.admin.heal()
    box_process.admin.forget()
    return box_process


def key_of(name: str) -> str:
    return f"fs-key-of-{name}"


def policy(
    boxes: Iterable[Simulator], *names: str, slots: int = 1, steps: Iterable[Step] = (LATER,), **options: dict[str, Any]
) -> CompiledPolicy:
    """Customers by name, each with the adapter ``NAME_v1`` and its ``options``, before boxes of so few slots."""
    specs = tuple(BoxSpec(letter, "main", box.url, slots, 64) for letter, box in zip("ab", boxes, strict=False))
    fleet = FleetSpec("main", "base", specs)
    customers = {}
    for name in names:
        rules: dict[str, Any] = {
            "ttft_budget_s": BUDGET_S,
            "plain_budget_s": 2 * BUDGET_S,
            "deadline_s": 20.0,
            "stall_timeout_s": 10.0,
        } | options.get(name, {})
        customers[name] = CustomerPolicy(
            name, fleet, frozenset({f"{name}_v1"}), tuple(steps), on_broken_stream="error", **rules
        )
    keys = {}
    for name, customer in customers.items():
        digest = hashlib.sha256(key_of(name).encode()).digest()
        keys[digest] = ApiKey(digest, customer)
    providers = {step.provider.name: step.provider for step in steps if isinstance(step, ProviderStep)}
    return CompiledPolicy(1, "store", 1_700_000_000, {"main": fleet}, providers, customers, keys)


def ask(plane: Plane, name: str, *, stream: bool = True, **fields: Any) -> asyncio.Task[Recording]:
    asking = plane.raw(key_of(name)).chat(f"{name}_v1", stream=stream, timeout_s=30, **fields)
    return asyncio.get_running_loop().create_task(asking)


async def hold_the_slot(plane: Plane, box: Simulator, name: str, seconds: float | None) -> asyncio.Task[Recording]:
    """A stream of ``name`` that shows its first content and then stands still for so long."""
    box.admin.fault("stall", adapter=f"{name}_v1", seconds=seconds)
    stream = ask(plane, name)
    await eventually(lambda: any(request["events"] >= 4 for request in box.admin.requests(model=f"{name}_v1")))
    return stream


async def until_waiting(plane: Plane, **by_adapter: int) -> None:
    expected = {f"{name}_v1": count for name, count in by_adapter.items()}
    await eventually(lambda: plane.dataplane.admission.waiting_for("main") == expected)


def served_by(recording: Recording) -> tuple[str, str | None]:
    return recording.headers["x-failsoft-served-by"], recording.headers.get("x-failsoft-degraded")


OWN = ("box:a", None)
TURNED_AWAY = ("static", "backend_saturated")


@pytest.mark.parametrize("stream", [True, False])
async def test_who_finds_all_slots_at_work_waits_for_one_and_is_answered_by_its_own_adapter(
    serve: ServePlane, box: Simulator, stream: bool
) -> None:
    plane = await serve(policy=policy([box], "acme", "globex", globex={"ttft_budget_s": 20.0, "plain_budget_s": 40.0}))
    first = await hold_the_slot(plane, box, "acme", 0.5)
    second = ask(plane, "globex", stream=stream)
    await until_waiting(plane, globex=1)
    assert box.admin.requests(model="globex_v1") == [], "it waits in the gateway, where it can still go elsewhere"
    assert served_by(await second) == OWN
    assert check_stream(await first).whole
    await eventually(lambda: plane.idle)
    assert plane.dataplane.admission.waiting == {}


async def test_who_waits_longer_than_the_budget_allows_is_answered_by_the_next_step_within_it(
    serve: ServePlane, box: Simulator
) -> None:
    plane = await serve(policy=policy([box], "acme", "globex"))
    first = await hold_the_slot(plane, box, "acme", None)
    answer = await ask(plane, "globex")
    assert served_by(answer) == TURNED_AWAY
    assert answer.headers["x-failsoft-attempts"] == "1", "no box was asked"
    assert answer.head_s is not None
    assert answer.head_s < BUDGET_S
    assert box.admin.requests(model="globex_v1") == []
    first.cancel()
    await eventually(lambda: plane.idle)
    assert plane.metrics.wait_seconds.count("none") == 1


async def test_who_has_its_adapter_at_work_there_waits_for_nobody(serve: ServePlane, box: Simulator) -> None:
    plane = await serve(policy=policy([box], "acme", "globex"))
    first = await hold_the_slot(plane, box, "acme", None)
    waiting = ask(plane, "globex")
    await until_waiting(plane, globex=1)
    box.admin.heal()
    assert served_by(await ask(plane, "acme")) == OWN
    first.cancel()
    await waiting
    await eventually(lambda: plane.idle)


async def test_another_box_with_slots_to_spare_takes_who_waited_for_its_home(
    serve: ServePlane, box: Simulator, hosted: Simulator, processes: Processes
) -> None:
    other = processes.box(name="other", any_adapter=True, tokens=6)
    await other.ready()
    both = {"a": box, "b": other}
    plane = await serve(policy=policy(both.values(), "acme", "globex", "initech", slots=2))
    # Whichever box is home to globex: two others keep its slots busy.
    home = plane.fleets.boxes_for("main", "globex_v1")[0].name
    elsewhere = next(name for name in both if name != home)
    permits = [plane.fleets.find(home).admit(f"{name}_v1", 0.0) for name in ("acme", "initech")]  # type: ignore[union-attr]
    assert served_by(await ask(plane, "globex")) == (f"box:{elsewhere}", None)
    for permit in permits:
        assert permit is not None
        permit.released()


async def test_room_goes_to_the_higher_priority_whoever_came_first(serve: ServePlane, box: Simulator) -> None:
    patience = {"ttft_budget_s": 20.0}
    plane = await serve(
        policy=policy(
            [box],
            *("acme", "low", "middle", "high"),
            low=patience | {"priority": "low"},
            middle=patience,
            high=patience | {"priority": "high"},
        )
    )
    first = await hold_the_slot(plane, box, "acme", None)
    waiting = []
    for count, name in enumerate(("low", "middle", "high"), start=1):
        waiting.append(ask(plane, name))
        await eventually(lambda count=count: plane.dataplane.admission.waiting == {"main": count})  # type: ignore[misc]
    first.cancel()
    answers = await asyncio.gather(*waiting)
    assert {served_by(answer) for answer in answers} == {OWN}
    order = [request["model"] for request in box.admin.requests() if request["model"] != "acme_v1"]
    assert order == ["high_v1", "middle_v1", "low_v1"]


async def test_a_customer_that_sends_much_is_served_behind_one_that_sends_little(
    serve: ServePlane, box: Simulator
) -> None:
    patience = {"ttft_budget_s": 20.0}
    plane = await serve(policy=policy([box], "noisy", "quiet", slots=8, noisy=patience, quiet=patience))
    a = plane.fleets.find("a")
    assert a is not None
    a.load.limit = ConcurrencyLimit(initial=4, least=4, most=4)
    box.admin.fault("stall", adapter="noisy_v1", seconds=0.3)
    crowd = [ask(plane, "noisy") for _ in range(30)]
    await until_waiting(plane, noisy=26)
    quiet = ask(plane, "quiet")
    answers = await asyncio.gather(*crowd, quiet)
    assert {served_by(answer) for answer in answers} == {OWN}
    order = [request["model"] for request in box.admin.requests()]
    assert order.index("quiet_v1") <= 8, "it did not wait behind the thirty that came before it"


async def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(serve: ServePlane, box: Simulator) -> None:
    plane = await serve(policy=policy([box], "acme", "globex", globex={"ttft_budget_s": 20.0}))
    first = await hold_the_slot(plane, box, "acme", None)
    leaving = ask(plane, "globex")
    await until_waiting(plane, globex=1)
    leaving.cancel()
    await until_waiting(plane)
    first.cancel()
    await eventually(lambda: plane.idle)
    assert box.admin.requests(model="globex_v1") == []
    assert served_by(await ask(plane, "globex")) == OWN


async def test_who_waits_for_a_box_that_dies_is_answered_by_the_next_step_at_once(
    serve: ServePlane, box: Simulator
) -> None:
    stalls, waits = {"stall_timeout_s": 4.0}, {"ttft_budget_s": 20.0}
    plane = await serve(policy=policy([box], "acme", "globex", acme=stalls, globex=waits))
    first = await hold_the_slot(plane, box, "acme", None)
    waiting = ask(plane, "globex")
    await until_waiting(plane, globex=1)
    a = plane.fleets.find("a")
    assert a is not None
    a.eject(asyncio.get_running_loop().time(), "it is gone")
    answer = await asyncio.wait_for(waiting, 10)
    assert served_by(answer) == ("static", "circuit_open")
    assert not check_stream(await first).whole


async def test_who_waits_when_the_gateway_ends_is_told_to_come_back(serve: ServePlane, box: Simulator) -> None:
    plane = await serve(policy=policy([box], "acme", "globex", globex={"ttft_budget_s": 20.0}))
    first = await hold_the_slot(plane, box, "acme", None)
    waiting = ask(plane, "globex")
    await until_waiting(plane, globex=1)
    plane.dataplane.end_requests()
    answer = await waiting
    assert (answer.status, answer.headers["x-should-retry"]) == (503, "true")
    await first


async def test_who_has_no_fallback_waits_beyond_its_budget_rather_than_fail(serve: ServePlane, box: Simulator) -> None:
    plane = await serve(policy=policy([box], "acme", "globex", steps=()))
    first = await hold_the_slot(plane, box, "acme", 2.5 * BUDGET_S)
    answer = await ask(plane, "globex")
    assert served_by(answer) == OWN
    assert answer.head_s is not None
    assert answer.head_s > BUDGET_S
    await first


async def test_where_even_the_fallback_is_short_the_low_priority_is_turned_away_and_the_high_one_waits_and_is_served(
    serve: ServePlane, box: Simulator, hosted: Simulator
) -> None:
    plane = await serve(
        policy=policy(
            [box],
            *("acme", "low", "high"),
            steps=[provider_step(hosted.url)],
            low={"priority": "low", "deadline_s": 4.0},
            high={"priority": "high", "deadline_s": 12.0},
        )
    )
    first = await hold_the_slot(plane, box, "acme", None)
    hosted.admin.fault("status", status=429, retry_after_s=30)
    # The provider says that it has enough: from now on nobody is sent there.
    assert (await ask(plane, "low")).status == 503
    low, high = ask(plane, "low"), ask(plane, "high")
    await until_waiting(plane, low=1, high=1)
    assert (await low).status == 503
    first.cancel()
    answer = await high
    assert served_by(answer) == OWN
    assert answer.head_s is not None
    assert answer.head_s > BUDGET_S


async def test_an_adapter_that_others_keep_out_gets_its_turn(
    serve: ServePlane, box: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fleet.turns.TURN_AFTER_S", 0.5)
    hurry = {"ttft_budget_s": 0.3}
    plane = await serve(policy=policy([box], "acme", "globex", acme={"ttft_budget_s": 20.0}, globex=hurry))
    box.admin.fault("stall", adapter="acme_v1", seconds=0.2)
    over = asyncio.Event()

    async def flow() -> list[Recording]:
        seen = []
        while not over.is_set():
            seen.append(await ask(plane, "acme"))
        return seen

    flows = [asyncio.get_running_loop().create_task(flow()) for _ in range(4)]
    await eventually(lambda: plane.metrics.attempts.value("box:a", "committed") >= 4)

    async def keep_asking() -> Recording:
        while served_by(answer := await ask(plane, "globex")) != OWN:
            assert served_by(answer) == TURNED_AWAY
        return answer

    answer = await asyncio.wait_for(keep_asking(), 20)
    assert check_stream(answer).whole
    over.set()
    for seen in await asyncio.gather(*flows):
        assert {served_by(one) for one in seen} == {OWN}, "who had to make room waited, and lost nothing"


async def test_a_request_over_the_customers_concurrency_gets_429_as_openai_says_it(
    serve: ServePlane, box: Simulator
) -> None:
    plane = await serve(policy=policy([box], "acme", "globex", slots=8, acme={"concurrency": 2}))
    running = [await hold_the_slot(plane, box, "acme", None), ask(plane, "acme")]
    await eventually(lambda: plane.dataplane.in_flight == 2)
    refused = await ask(plane, "acme")
    assert refused.status == 429
    assert refused.headers["retry-after"] == "1"
    assert check_error(refused).violations == []
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "limits.concurrency" in refused.json()["error"]["message"]
    with pytest.raises(openai.RateLimitError):
        await plane.sdk(key_of("acme")).chat.completions.create(
            model="acme_v1", messages=[{"role": "user", "content": "x"}]
        )
    assert served_by(await ask(plane, "globex")) == OWN, "nobody else is concerned"
    assert plane.metrics.limit_refused.value("acme", "concurrency") == 2
    for one in running:
        one.cancel()
    await eventually(lambda: plane.idle)
    box.admin.heal()
    assert served_by(await ask(plane, "acme")) == OWN
