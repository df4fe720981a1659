"""Each drill is one gateway's, and its outcome everybody's; a store that is away hurts nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from gateway.drills import keeper as keepers
from gateway.drills.drill import Outcome
from gateway.drills.keeper import DrillKeeper
from gateway.drills.target import Target, key_of
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, StaticStep
from gateway.policy.embedded import EmbeddedValkey
from tests.drills.test_what_is_proven_when import HOSTED, customer, policy
from tests.support.eventually import eventually


class Gateway:
    """A keeper whose drills come to what ``error`` says, after ``takes_s``."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.metrics, self.events = GatewayMetrics(self.registry), Events()
        self.alarms = Alarms(self.metrics, self.events)
        self.error = self.held_back = ""
        self.takes_s = 0.0
        self.tried = 0
        self.drills = DrillKeeper(
            self, metrics=self.metrics, alarms=self.alarms, events=self.events, uniform=lambda: 0.5
        )

    async def prove(self, target: Target, payer: CustomerPolicy | None = None) -> Outcome:
        self.tried += 1
        await asyncio.sleep(self.takes_s)
        if self.held_back:
            return Outcome("", held_back=self.held_back)
        return Outcome(self.error, "" if self.error else "generic", 5)

    @property
    def state(self) -> str:
        (entry,) = self.drills.entries()
        return entry.state

    @property
    def alarmed(self) -> set[str]:
        return {alarm.kind for alarm in self.alarms.current()}


Start = Callable[[CompiledPolicy], Awaitable[Gateway]]


@pytest.fixture
async def start(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(keepers, "LOOK_S", 0.02)
    monkeypatch.setattr(keepers, "ALARMS_S", 0.1)
    started: list[Gateway] = []

    async def one(compiled: CompiledPolicy) -> Gateway:
        gateway = Gateway()
        started.append(gateway)
        gateway.drills.follow(compiled)
        gateway.drills.start(valkey.url)
        return gateway

    yield one
    for gateway in started:
        await gateway.drills.close()


def every(every_s: float | None) -> CompiledPolicy:
    return policy(acme=customer("acme", HOSTED, StaticStep("later"), every_s=every_s))


async def test_what_is_due_on_many_gateways_is_tried_by_one(start: Start) -> None:
    gateways = [await start(every(2.0)) for _ in range(4)]
    for gateway in gateways:
        gateway.takes_s = 0.2
    for gateway in gateways:
        await eventually(lambda gateway=gateway: gateway.state == "proven")  # type: ignore[misc]
    assert sum(gateway.tried for gateway in gateways) == 1
    assert "failsoft_drill_proof_age_seconds" in gateways[0].registry.render().decode()


async def test_a_failure_alarms_on_every_gateway_until_the_next_good_one(start: Start) -> None:
    first, second = await start(every(None)), await start(every(None))
    first.error = "status 500"
    acme = customer("acme", HOSTED)
    (entry,) = await first.drills.drill(acme)
    assert entry.state == "failed"
    for gateway in (first, second):
        await eventually(lambda gateway=gateway: gateway.alarmed == {"drill_failed"})  # type: ignore[misc]
    assert first.metrics.drills.value("provider:hosted", "failed") == 1
    # Another gateway's good one ends it, and so does a customer's own answer.
    second.drills.testify(key_of(acme, HOSTED), model="generic", error="")
    for gateway in (first, second):
        await eventually(lambda gateway=gateway: not gateway.alarmed)  # type: ignore[misc]
        assert gateway.state == "proven"


async def test_a_drill_that_a_cap_holds_back_has_not_failed_and_its_proof_grows_older(start: Start) -> None:
    gateway = await start(every(None))
    acme = customer("acme", HOSTED)
    (proven,) = await gateway.drills.drill(acme)
    assert (proven.state, proven.held_back) == ("proven", "")
    gateway.held_back = "daily cap spent"
    (held,) = await gateway.drills.drill(acme)
    assert (held.state, held.held_back) == ("proven", "daily cap spent")
    assert held.proof == proven.proof
    gateway.held_back, gateway.error = "", "status 500"
    (failed,) = await gateway.drills.drill(acme)
    assert (failed.state, failed.held_back) == ("failed", "")
    drills = gateway.metrics.drills
    assert [drills.value("provider:hosted", outcome) for outcome in ("passed", "held_back", "failed")] == [1, 1, 1]


async def test_a_drill_that_is_held_back_until_its_proof_is_too_old_alarms_as_stale(start: Start) -> None:
    gateway = await start(every(0.3))
    gateway.held_back = "daily cap spent"
    await eventually(lambda: gateway.alarmed == {"drill_stale"}, within_s=10)
    assert gateway.tried == 1  # and not at each look
    assert gateway.drills.entries()[0].held_back == "daily cap spent"


async def test_a_gateway_that_lacks_a_providers_key_leaves_its_drills_to_the_others(start: Start) -> None:
    broken = replace(HOSTED, provider=replace(HOSTED.provider, unavailable="KEY is not set"))
    lacking = await start(policy(acme=customer("acme", broken, every_s=1.0)))
    other = await start(every(1.0))
    await eventually(lambda: other.tried and lacking.state == "proven")
    assert lacking.tried == 0


async def test_what_was_never_proven_for_twice_its_interval_alarms(start: Start) -> None:
    gateway = await start(every(0.2))
    gateway.takes_s = 30.0
    await eventually(lambda: gateway.alarmed == {"drill_stale"}, within_s=10)


async def test_with_the_store_away_a_command_still_tries_and_is_shared_when_it_is_back(
    start: Start, valkey: EmbeddedValkey
) -> None:
    first, second = await start(every(None)), await start(every(None))
    await eventually(lambda: first.drills._looked and second.drills._looked)
    await valkey.stop()
    (entry,) = await first.drills.drill(customer("acme", HOSTED))
    assert (entry.state, second.state) == ("proven", "unproven")
    await valkey.start()
    await eventually(lambda: second.state == "proven", within_s=10)


async def test_ten_thousand_customers_that_share_a_way_to_fall_back_cost_one_drill(start: Start) -> None:
    acme = customer("acme", HOSTED, every_s=2.0)
    many = {f"c{i}": replace(acme, name=f"c{i}") for i in range(10_000)}
    gateway = await start(policy(**many))
    await eventually(lambda: gateway.drills.entries())
    await eventually(lambda: gateway.state == "proven")
    assert gateway.tried == 1
    text = gateway.registry.render().decode()
    assert text.count("failsoft_drill_proof_age_seconds{") == keepers.MOST_SERIES
    assert "failsoft_drill_oldest_proof_age_seconds{" in text
