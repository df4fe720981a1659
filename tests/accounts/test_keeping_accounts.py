"""What was used is one sum over gateways, restarts, and a store that was away; alarms tell of caps in time."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from gateway.accounts import accounts as module
from gateway.accounts.account_store import AccountStore
from gateway.accounts.accounts import Accounts
from gateway.accounts.caps import CAP_NEAR, CAP_SPENT, Caps
from gateway.accounts.exchange import Ask, Batch, Row
from gateway.accounts.usage import NANO
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy import reconnect
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, FleetSpec
from gateway.policy.embedded import EmbeddedValkey
from tests.accounts.conftest import Start
from tests.support.eventually import eventually

DAY = dt.date(2026, 11, 25)
FLEET = FleetSpec("main", "base", ())


def policy(**limits: float | None) -> CompiledPolicy:
    acme = CustomerPolicy("acme", FLEET, frozenset({"acme_v1"}), (), 2.0, 30.0, 60.0, 10.0, "error")
    acme = dataclasses.replace(acme, **limits)
    return CompiledPolicy(1, "store", 0, {"main": FLEET}, {}, {"acme": acme}, {})


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.05)
    monkeypatch.setattr(reconnect, "RECONNECT_WAIT_MAX_S", 0.1)


def use(accounts: Accounts, usd: float) -> None:
    found = accounts.usage.cell("acme", "provider:hosted", "backend_down")
    for index, amount in enumerate((1, 100, 20, 0, round(usd * NANO), 0, 0)):
        found[index] += amount
    accounts.usage.spend("acme", round(usd * NANO))


async def sums(store: AccountStore) -> tuple[int, ...]:
    rows = [row for _, row in await store.usage(DAY, DAY)]
    return tuple(map(sum, zip(*(row.counts for row in rows), strict=True)))


async def test_what_one_gateway_spends_all_know_and_one_that_starts_anew_too(start: Start, store: AccountStore) -> None:
    first, second = start(policy(usd_per_day=25.0)), start(policy(usd_per_day=25.0))
    use(first, 3)
    use(second, 4)
    await eventually(lambda: first.spent("acme") == second.spent("acme") == 7 * NANO)
    await first.close()
    third = start(policy(usd_per_day=25.0))
    await eventually(lambda: third.spent("acme") == 7 * NANO)
    assert await sums(store) == (2, 200, 40, 0, 7 * NANO, 0, 0)


async def test_a_new_day_begins_at_nothing(start: Start) -> None:
    days = ["2026-11-25"]
    accounts = start(policy(usd_per_day=25.0), today=lambda: days[0])
    use(accounts, 3)
    await eventually(lambda: accounts.spent("acme") == 3 * NANO and accounts.usage.batch() is None)
    days[0] = "2026-11-26"
    await eventually(lambda: accounts.spent("acme") == 0)
    use(accounts, 1)
    await eventually(lambda: accounts.usage.batch() is None)
    assert accounts.spent("acme") == NANO


async def test_a_batch_that_may_have_arrived_is_counted_once(store: AccountStore) -> None:
    rows = [Row("acme", "own", "none", (1, 10, 20, 0, 0, 0, 0))]
    day = DAY.isoformat()
    for again in (False, True, True):
        await store.exchange(Ask("p", 0, {}, [], [], [], Batch(1, day, rows, again=again), day, []))
    assert await sums(store) == (1, 10, 20, 0, 0, 0, 0)
    await store.exchange(Ask("p", 0, {}, [], [], [], Batch(2, day, rows, again=True), day, []))
    assert await sums(store) == (2, 20, 40, 0, 0, 0, 0)


async def test_what_was_used_while_the_store_was_away_is_counted_when_it_is_back(
    start: Start, store: AccountStore, valkey: EmbeddedValkey
) -> None:
    accounts = start(policy(usd_per_day=25.0))
    use(accounts, 1)
    await eventually(lambda: accounts.usage.batch() is None)
    await valkey.stop()
    use(accounts, 2)
    assert accounts.spent("acme") == 3 * NANO
    await valkey.start()
    await eventually(lambda: accounts.usage.batch() is None, within_s=10)
    assert accounts.spent("acme") == 3 * NANO
    assert await sums(store) == (2, 200, 40, 0, 3 * NANO, 0, 0)


async def test_a_store_that_was_emptied_gives_nobody_the_cap_again(start: Start, store: AccountStore) -> None:
    accounts = start(policy(usd_per_day=25.0))
    use(accounts, 5)
    await eventually(lambda: accounts.usage.batch() is None)
    await store._link.redis.flushall()
    use(accounts, 1)
    await eventually(lambda: accounts.usage.batch() is None)
    assert accounts.spent("acme") == 6 * NANO


def test_an_alarm_tells_of_a_cap_at_80_percent_and_when_it_is_spent() -> None:
    metrics = GatewayMetrics(Registry())
    alarms = Alarms(metrics, Events())
    spent = {"acme": 0}
    caps = Caps(metrics, alarms, lambda name: spent[name])
    caps.follow(policy(usd_per_day=10.0))

    def on() -> list[tuple[str, str]]:
        return [(alarm.kind, alarm.message) for alarm in alarms.current()]

    assert on() == []
    spent["acme"] = 8 * NANO
    caps.look()
    assert on() == [(CAP_NEAR, "acme has spent 8.00 of its 10 USD at hosted providers today (UTC)")]
    spent["acme"] = 11 * NANO
    caps.look()
    assert [kind for kind, _ in on()] == [CAP_SPENT]
    assert dict(metrics.hosted_cap_used.items()) == {("acme",): 1.1}
    spent["acme"] = 0
    caps.look()
    assert on() == []
    spent["acme"] = 11 * NANO
    caps.look()
    caps.follow(policy())
    assert on() == []
