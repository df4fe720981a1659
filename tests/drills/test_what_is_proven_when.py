"""What has to be proven, when it is due, and what several gateways know of it together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drills.ledger import Ledger
from gateway.drills.proof import Proof, followed_by, merged
from gateway.drills.schedule import FIRST_WITHIN_S, RETRY_S, Schedule
from gateway.drills.target import Target, key_of, targets_of
from gateway.policy.compiled import (
    BaseStep,
    CompiledPolicy,
    CustomerPolicy,
    ProviderSpec,
    ProviderStep,
    StaticStep,
    Step,
)
from tests.fleet.policies import compiled

DAY_S = 86_400.0
NOW_MS = 1_700_000_000_000
SPEC = ProviderSpec("hosted", "openai/gpt", None, "key")
HOSTED = ProviderStep(SPEC, "openai/gpt")


def policy(**customers: CustomerPolicy) -> CompiledPolicy:
    return replace(compiled(), customers=customers)


def customer(name: str, *steps: Step, every_s: float | None = DAY_S, hosted_allowed: bool = True) -> CustomerPolicy:
    acme = compiled().customers["acme"]
    return replace(acme, name=name, steps=tuple(steps), drill_every_s=every_s, hosted_allowed=hosted_allowed)


def proof(key: str = "k", *, at_ms: int = NOW_MS, error: str = "", failures: int = 1, good_ms: int = 0) -> Proof:
    if not error:
        failures, good_ms = 0, good_ms or at_ms
    return Proof(key=key, at_ms=at_ms, by="schedule", error=error, failures=failures, good_ms=good_ms)


def test_customers_to_whom_the_very_same_would_be_sent_share_a_proof_and_the_shorter_interval_holds() -> None:
    acme, globex = customer("acme", HOSTED, BaseStep()), customer("globex", HOSTED, every_s=3600)
    initech = customer("initech", replace(HOSTED, system_prompt="As Initech."), StaticStep("later"), every_s=None)
    found = targets_of(policy(acme=acme, globex=globex, initech=initech))
    assert sorted((target.name, target.customers, target.every_s) for target in found.values()) == [
        ("base:main", ("acme",), DAY_S),
        ("provider:hosted", ("acme", "globex"), 3600),
        ("provider:hosted", ("initech",), None),
    ]
    assert all(found[key].key == key for key in found)


@pytest.mark.parametrize(
    "other",
    [
        replace(HOSTED, model="openai/gpt-mini"),
        replace(HOSTED, system_prompt="x"),
        replace(HOSTED, drop=frozenset({"seed"})),
        replace(HOSTED, provider=replace(SPEC, api_base="http://elsewhere/v1")),
        replace(HOSTED, provider=replace(SPEC, name="other")),
        BaseStep(),
    ],
)
def test_whatever_could_make_a_proof_worth_nothing_makes_it_another(other: ProviderStep | BaseStep) -> None:
    acme = customer("acme", HOSTED)
    assert key_of(acme, HOSTED) != key_of(acme, other)


def test_another_api_key_is_no_other_way_as_each_gateway_has_its_own() -> None:
    acme = customer("acme", HOSTED)
    assert key_of(acme, HOSTED) == key_of(acme, replace(HOSTED, provider=replace(SPEC, api_key="other")))


steps = st.lists(st.sampled_from([HOSTED, BaseStep(), StaticStep("later"), replace(HOSTED, system_prompt="x")]))


@given(st.lists(st.tuples(steps, st.booleans()), max_size=5))
def test_of_who_keeps_every_token_at_home_no_provider_is_ever_a_target(
    rows: list[tuple[Sequence[Step], bool]],
) -> None:
    customers = {
        str(i): customer(
            str(i),
            *(step for step in own if allowed or not isinstance(step, ProviderStep)),
            hosted_allowed=allowed,
        )
        for i, (own, allowed) in enumerate(rows)
    }
    for target in targets_of(policy(**customers)).values():
        if isinstance(target.step, ProviderStep):
            assert all(customers[name].hosted_allowed for name in target.customers)
            assert target.customer.hosted_allowed


proofs = st.builds(proof, at_ms=st.integers(1, 4), error=st.sampled_from(["", "x"]), good_ms=st.integers(0, 4))


@given(proofs, proofs, proofs)
def test_what_gateways_know_together_is_no_matter_of_sequence(one: Proof, two: Proof, three: Proof) -> None:
    assert merged(one, two) == merged(two, one)
    assert merged(merged(one, two), three) == merged(one, merged(two, three))
    assert merged(one, one) == one
    assert merged(one, two).good_ms == max(one.good_ms, two.good_ms)


def test_a_failure_keeps_when_it_last_went_well_and_counts() -> None:
    good = followed_by(None, key="k", at_ms=10, by="schedule", model="generic")
    bad = followed_by(good, key="k", at_ms=20, by="schedule", error="status 500")
    worse = followed_by(bad, key="k", at_ms=30, by="traffic", error="status 500")
    assert [(one.ok, one.good_ms, one.failures) for one in (good, bad, worse)] == [
        (True, 10, 0),
        (False, 10, 1),
        (False, 10, 2),
    ]
    assert followed_by(worse, key="k", at_ms=40, by="command").failures == 0


def target(every_s: float | None = DAY_S, key: str = "k") -> Target:
    return Target(key, "provider:hosted", HOSTED, customer("acme", HOSTED), ("acme",), every_s)


def due_at(schedule: Schedule) -> float:
    return schedule._due["k"]


def test_a_new_way_is_tried_soon_but_not_at_once() -> None:
    for number in (0.0, 0.5, 1.0):
        schedule = Schedule(lambda number=number: number)  # type: ignore[misc]
        schedule.follow({"k": target()}, {}, NOW_MS, 100.0)
        assert FIRST_WITHIN_S / 2 <= due_at(schedule) - 100 <= FIRST_WITHIN_S
        assert schedule.due(100.0) == []
        assert schedule.due(100 + FIRST_WITHIN_S) == ["k"]


@given(st.floats(0, 1), st.integers(0, 10 * 86_400_000))
def test_a_proof_never_grows_older_than_its_interval_before_it_is_due(number: float, age_ms: int) -> None:
    schedule = Schedule(lambda: number)
    schedule.follow({"k": target()}, {"k": proof(at_ms=NOW_MS - age_ms)}, NOW_MS, 0.0)
    age_when_due_s = age_ms / 1000 + due_at(schedule)
    assert 0.9 * DAY_S - 1e-3 <= age_when_due_s <= DAY_S + 1e-3


def test_after_failures_it_is_tried_again_with_waits_that_double() -> None:
    waits = []
    for failures in (1, 2, 3, 20):
        schedule = Schedule(lambda: 0.0)
        schedule.follow({"k": target()}, {"k": proof(error="x", failures=failures)}, NOW_MS, 0.0)
        waits.append(due_at(schedule))
    assert waits == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S, 3600]


def test_never_is_never() -> None:
    schedule = Schedule(lambda: 0.0)
    schedule.follow({"k": target(None)}, {}, NOW_MS, 0.0)
    assert due_at(schedule) == math.inf
    assert schedule.due(1e12) == []


def test_a_proof_from_the_future_as_after_a_clock_was_set_back_is_of_now() -> None:
    schedule = Schedule(lambda: 0.0)
    schedule.follow({"k": target()}, {"k": proof(at_ms=NOW_MS + 10**9)}, NOW_MS, 0.0)
    assert due_at(schedule) == DAY_S


def test_a_policy_that_changes_nothing_moves_nothing_and_one_that_drops_it_ends_it() -> None:
    schedule = Schedule(lambda: 0.0)
    schedule.follow({"k": target()}, {}, NOW_MS, 0.0)
    before = due_at(schedule)
    schedule.follow({"k": target()}, {}, NOW_MS, 200.0)
    assert due_at(schedule) == before
    schedule.follow({}, {}, NOW_MS, 200.0)
    assert schedule.due(1e12) == []


def ledger(*known: Proof, every_s: float | None = DAY_S) -> Ledger:
    made = Ledger(lambda: 0.0)
    made.follow({"k": target(every_s)}, NOW_MS, 0.0)
    made.take(known, NOW_MS, 0.0)
    return made


@pytest.mark.parametrize(
    ("known", "every_s", "after_s", "state", "age_s"),
    [
        ((), DAY_S, 0, "unproven", None),
        ((), DAY_S, 2 * DAY_S + 1, "stale", None),
        ((), None, 9 * DAY_S, "unproven", None),
        ((proof(),), DAY_S, 2 * DAY_S, "proven", 2 * DAY_S),
        ((proof(),), DAY_S, 2 * DAY_S + 1, "stale", 2 * DAY_S + 1),
        ((proof(),), None, 9 * DAY_S, "proven", 9 * DAY_S),
        ((proof(), proof(at_ms=NOW_MS + 1, error="x")), DAY_S, 60, "failed", 60),
        ((proof(at_ms=NOW_MS + 1, error="x"), proof(at_ms=NOW_MS + 2)), DAY_S, 1, "proven", 0.998),
    ],
)
def test_how_a_fallback_stands(
    known: tuple[Proof, ...], every_s: float | None, after_s: float, state: str, age_s: float | None
) -> None:
    (entry,) = ledger(*known, every_s=every_s).entries(NOW_MS + round(after_s * 1000), after_s)
    assert (entry.state, entry.age_s) == (state, age_s)


def test_what_the_store_lacks_is_only_what_there_is_a_way_for() -> None:
    known = ledger(proof(), proof("gone"))
    assert known.lacking({}) == [proof()]
    assert known.lacking({"k": proof()}) == []
    assert known.lacking({"k": proof(at_ms=NOW_MS + 5)}) == []
    assert known.lacking({"k": proof(at_ms=NOW_MS - 5)}) == [proof()]
