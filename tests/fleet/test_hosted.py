"""The providers of the policy in force: whose state lasts, whose begins anew, and who hears of a change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import UpstreamError, UpstreamStatus
from gateway.fleet.breaker import THRESHOLD
from gateway.fleet.hosted import UNAUTHORIZED, Hosted
from gateway.policy.compiled import CompiledPolicy, ProviderSpec
from tests.fleet.policies import compiled
from tests.fleet.token_box import Watchers

SPEC = ProviderSpec("hosted", "openai/gpt-4o-mini", "http://10.0.0.9/v1", "sk-1")


def policy(*specs: ProviderSpec) -> CompiledPolicy:
    return replace(compiled(), providers={spec.name: spec for spec in specs})


@pytest.fixture
def hosted(watchers: Watchers) -> Hosted:
    hosted = Hosted(metrics=watchers.metrics, alarms=watchers.alarms, events=watchers.events, clock=lambda: 0.0)
    hosted.follow(policy(SPEC))
    return hosted


def fail(hosted: Hosted, error: UpstreamError | None = None, *, now: float = 0.0) -> None:
    for _ in range(THRESHOLD):
        if (permit := hosted.of(SPEC).admit(now, streamed=True)) is not None:
            permit.failed(error or UpstreamStatus(500), now)


def answer(hosted: Hosted, now: float) -> None:
    permit = hosted.of(SPEC).admit(now, streamed=True)
    assert permit is not None
    with permit:
        permit.succeeded(now)


def told(watchers: Watchers) -> list[tuple[object, ...]]:
    fields_of = [event.fields for event in watchers.events.since(0) if event.kind == "provider_state"]
    return [(fields["provider"], fields["state"], fields.get("why")) for fields in fields_of]


def test_a_provider_that_did_not_change_keeps_its_state(hosted: Hosted) -> None:
    fail(hosted)
    hosted.follow(policy(replace(SPEC, model="openai/gpt-5-mini"), replace(SPEC, name="other")))
    assert hosted.condition(SPEC, 0) == "circuit open"
    assert hosted.is_last_resort(SPEC, 0)
    assert hosted.condition(replace(SPEC, name="other"), 0) is None


@pytest.mark.parametrize(
    "change", [{"api_key": "sk-2"}, {"api_base": "http://10.0.0.8/v1"}, {"model": "anthropic/claude"}]
)
def test_one_with_another_address_or_key_starts_anew_and_its_alarm_ends(
    hosted: Hosted, watchers: Watchers, change: dict[str, str]
) -> None:
    watchers.alarms.on(UNAUTHORIZED, "hosted", "check its key")
    old = hosted.of(SPEC).admit(0, streamed=True)
    assert old is not None
    fail(hosted, UpstreamStatus(401))
    new = replace(SPEC, **change)
    hosted.follow(policy(new))
    assert hosted.condition(new, 0) is None
    assert hosted.condition(SPEC, 0) is None, "a request under the old policy asks whom nobody watches any more"
    assert not watchers.alarms.is_on(UNAUTHORIZED, "hosted")
    before = told(watchers)
    old.failed(UpstreamStatus(429), 0)
    assert told(watchers) == before


def test_one_that_left_the_policy_is_dropped(hosted: Hosted, watchers: Watchers) -> None:
    fail(hosted)
    hosted.follow(policy())
    assert "failsoft_provider_state{" not in watchers.registry.render().decode()
    hosted.follow(policy(SPEC))
    assert hosted.condition(SPEC, 0) is None


def test_its_state_is_a_gauge_and_its_changes_are_counted_and_told(hosted: Hosted, watchers: Watchers) -> None:
    fail(hosted)
    text = watchers.registry.render().decode()
    assert 'failsoft_provider_state{provider="hosted",state="open"} 1.0' in text
    assert 'failsoft_provider_state{provider="hosted",state="closed"} 0.0' in text
    for trial in (1, 3, 7):
        fail(hosted, now=trial)
    answer(hosted, 15)
    fail(hosted, UpstreamStatus(429), now=15)
    assert told(watchers) == [
        ("hosted", "open", "status 500"),
        ("hosted", "closed", None),
        ("hosted", "backing_off", "status 429"),
    ]
    assert watchers.metrics.breaker_transitions.value("provider:hosted", "open") == 4
    assert watchers.metrics.breaker_transitions.value("provider:hosted", "half_open") == 4
    assert watchers.metrics.breaker_transitions.value("provider:hosted", "closed") == 1
    assert watchers.metrics.breaker_transitions.value("provider:hosted", "backing_off") == 1
