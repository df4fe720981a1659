"""What one set of policies would change for whom, in words."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.compile import compile_policy
from gateway.policy.difference import difference
from gateway.policy.effective import effective
from gateway.policy.models import CustomerFile, FleetFile, Rules
from gateway.policy.policy_set import PolicySet
from tests.policy.scenery import digest

# Few values of each kind, so that two sets are often the same in part.
KEYS = st.sampled_from([digest("one"), digest("two")])
MAYBE = st.booleans()


def optional(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


STEP = st.one_of(
    st.builds(
        lambda provider, more: {"provider": provider, **more},
        st.sampled_from(["hosted", "other"]),
        optional(
            model=st.sampled_from(["openai/a", "openai/b"]),
            drop=st.sampled_from([[], ["seed"], ["logprobs", "seed"], ["seed", "logprobs"]]),
            system_prompt=st.sampled_from(["Be kind.", "Be brief."]),
        ),
    ),
    st.just({"base": {}}),
    st.builds(lambda text, more: {"static": text, **more}, st.sampled_from(["x", "y"]), optional(even_for_tools=MAYBE)),
)
RULES = optional(
    ttft_budget=st.sampled_from(["2s", "2000ms", "1s"]),
    deadline=st.sampled_from(["60s", "1m", "20s"]),
    plain_budget=st.sampled_from(["30s", "10s"]),
    on_broken_stream=st.sampled_from(["resume", "restart", "error"]),
    seed_streams=st.booleans(),
    priority=st.sampled_from(["standard", "low"]),
    limits=optional(requests_per_minute=st.sampled_from([1, 2]), concurrency=st.sampled_from([1, 2])),
    hosted=optional(allowed=MAYBE, usd_per_day=st.sampled_from([1.0, 2.0])),
    fallback=st.lists(STEP, max_size=2),
)


@st.composite
def customers(draw: st.DrawFn, name: str) -> CustomerFile:
    adapters = draw(st.lists(st.sampled_from([f"{name}_1", f"{name}_2"]), unique=True, min_size=1))
    weights = st.dictionaries(st.sampled_from(adapters), st.sampled_from([1, 2]), min_size=1)
    written = draw(RULES) | draw(optional(fleet=st.just("main")))
    written |= draw(optional(aliases=st.just({name: adapters[0]}) | st.builds(lambda w: {name: w}, weights)))
    key = {"sha256": digest(name), **draw(optional(name=st.sampled_from(["ci", "x"]), expires=st.dates()))}
    second = digest(name + "2")
    keys: list[Any] = draw(st.sampled_from([[key], [key, second], [second, key], [digest(name)]]))
    return CustomerFile.model_validate({"customer": name, "adapters": adapters, "api_keys": keys, **written})


@st.composite
def policy_sets(draw: st.DrawFn) -> PolicySet:
    boxes = draw(
        st.dictionaries(
            st.sampled_from(["a", "b"]),
            optional(max_loras=st.sampled_from([8, 4]), max_cpu_loras=st.sampled_from([64, 99])),
            min_size=1,
        )
    )
    fleet = {
        "fleets": {
            "main": {
                "base_model": draw(st.sampled_from(["base", "base2"])),
                "boxes": {name: {"url": f"http://{name}", **more} for name, more in boxes.items()},
                **draw(optional(max_lora_rank=st.sampled_from([16, 8]))),
            }
        },
        "providers": {
            "hosted": {"model": draw(st.sampled_from(["openai/a", "openai/b"]))},
            "other": {"model": "anthropic/c", **draw(optional(api_base=st.just("https://x"), api_key=st.just("${K}")))},
        },
    }
    names = draw(st.lists(st.sampled_from(["acme", "globex"]), unique=True))
    return PolicySet(
        FleetFile.model_validate(fleet),
        Rules.model_validate(draw(RULES)),
        tuple(draw(customers(name)) for name in names),
    )


def in_effect(policies: PolicySet) -> Any:
    """All that is compiled, and what is written and not compiled: an account of its own of what is in effect."""
    compiled = compile_policy(policies, version=1, store_id="s", created_s=0, env=None)
    fleets = {
        name: (fleet, sorted(compiled.fleets[name].boxes, key=lambda box: box.name), compiled.fleets[name].base_model)
        for name, fleet in ((name, fleet.max_lora_rank) for name, fleet in policies.fleet.fleets.items())
    }
    references = {name: provider.api_key for name, provider in policies.fleet.providers.items()}
    found = {}
    for customer in policies.customers:
        rules = effective(policies.defaults, customer, policies.fleet.providers)
        aliases = {
            alias: Counter({target: 1}) if isinstance(target, str) else _shares(target)
            for alias, target in customer.aliases.items()
        }
        found[customer.customer] = (
            # Aliases come below, by their shares: 2 of 2 is what 1 of 1 is.
            dataclasses.replace(compiled.customers[customer.customer], fleet=None, aliases={}),  # type: ignore[arg-type]
            {key.sha256: (key.name, key.expires) for key in customer.keys},
            rules.limits,
            rules.hosted,
            {alias: dict(shares) for alias, shares in aliases.items()},
        )
    return fleets, compiled.providers, references, found


def _shares(weights: dict[str, int]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


@given(policy_sets(), policy_sets())
def test_there_are_words_exactly_where_something_changes(one: PolicySet, other: PolicySet) -> None:
    assert (difference(one, other) == ()) == (in_effect(one) == in_effect(other))


@settings(max_examples=50)
@given(policy_sets(), st.data())
def test_one_customer_changed_is_told_of_that_customer_alone(policies: PolicySet, data: st.DataObject) -> None:
    if not policies.customers:
        return
    first = policies.customers[0]
    other = dataclasses.replace(policies, customers=(data.draw(customers(first.customer)), *policies.customers[1:]))
    changes = difference(policies, other)
    assert (changes == ()) == (in_effect(policies) == in_effect(other))
    assert {change.subject for change in changes} <= {first.customer}


@settings(max_examples=25)
@given(policy_sets())
def test_nothing_changes_beside_itself_however_it_was_stored(policies: PolicySet) -> None:
    assert difference(policies, policies) == ()


@settings(max_examples=25)
@given(policy_sets())
def test_beside_nothing_all_is_new(policies: PolicySet) -> None:
    subjects = {change.subject for change in difference(None, policies)}
    assert subjects == {"fleet main", "provider hosted", "provider other", *(c.customer for c in policies.customers)}


def policies(fleet: dict[str, Any] | None = None, defaults: dict[str, Any] | None = None, **acme: Any) -> PolicySet:
    written = {
        "fleets": {"main": {"base_model": "base", "boxes": {"box-a": {"url": "http://a"}}}},
        "providers": {"hosted": {"model": "openai/gpt-4o-mini"}},
    }
    customer = {"customer": "acme", "api_keys": [digest("k")], "adapters": ["acme_v3"], **acme}
    return PolicySet(
        FleetFile.model_validate(written | (fleet or {})),
        Rules.model_validate(defaults or {}),
        (CustomerFile.model_validate(customer),),
    )


def told(before: PolicySet, after: PolicySet) -> list[str]:
    return [f"{change.subject}: {change.words}" for change in difference(before, after)]


CI = {"sha256": digest("ci"), "name": "ci"}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, {"hosted": {"allowed": False}}, [
            "acme: may no longer reach hosted providers",
            "acme: fallback is nothing (before: provider hosted)",
        ]),
        ({"api_keys": [digest("k"), CI]}, {}, ["acme: one key is revoked (ci)"]),
        ({}, {"api_keys": [digest("k"), {**CI, "expires": "2027-01-01"}]}, [
            "acme: one key is added (ci, until 2027-01-01)"
        ]),
        ({"api_keys": [CI]}, {"api_keys": [{**CI, "expires": "2027-01-01"}]}, [
            "acme: key ci is valid until 2027-01-01 (before: does not expire)"
        ]),
        ({}, {"api_keys": [digest("other")]}, [
            f"acme: one key is revoked ({digest('k')[:15]}…)",
            f"acme: one key is added ({digest('other')[:15]}…)",
        ]),
        ({}, {"limits": {"requests_per_minute": 600}}, [
            "acme: limits.requests_per_minute is 600 (before: no limit)"
        ]),
        ({"hosted": {"usd_per_day": 5.0}}, {}, [
            "acme: may spend any amount a day at hosted providers (before: 5 USD)"
        ]),
        ({}, {"adapters": ["acme_v4"]}, ["acme: adapter acme_v3 is removed", "acme: adapter acme_v4 is added"]),
        ({"aliases": {"a": "acme_v3"}}, {"aliases": {"a": {"acme_v3": 95, "acme_v4": 5}}}, [
            "acme: alias a leads to acme_v3 95 %, acme_v4 5 % (before: acme_v3)"
        ]),
        ({}, {"deadline": "20s"}, [
            "acme: plain_budget is 10s (before: 30s)", "acme: deadline is 20s (before: 1m)"
        ]),
        ({"fallback": [{"base": {}}]}, {"fallback": [{"base": {}}, {"static": "Later."}]}, [
            "acme: fallback is the base, then a text (before: the base)"
        ]),
        ({"fallback": [{"static": "Later."}]}, {"fallback": [{"static": "Soon."}]}, [
            "acme: fallback step 1 (a text): static is Soon. (before: Later.)"
        ]),
        ({"priority": "low"}, {"priority": "standard"}, ["acme: priority is standard (before: low)"]),
    ],
)  # fmt: skip
def test_it_is_said_what_changes_for_a_customer(before: Any, after: Any, words: list[str]) -> None:
    def dated(written: dict[str, Any]) -> dict[str, Any]:
        keys = written.get("api_keys", [])
        for key in keys:
            if isinstance(key, dict) and isinstance(key.get("expires"), str):
                key["expires"] = dt.date.fromisoformat(key["expires"])
        return written

    assert told(policies(**dated(before)), policies(**dated(after))) == words


def test_it_is_said_what_changes_for_boxes_and_providers() -> None:
    before = policies()
    after = policies(
        {
            "fleets": {
                "main": {
                    "base_model": "base",
                    "boxes": {"box-a": {"url": "http://other"}, "box-b": {"url": "http://b"}},
                }
            },
            "providers": {"hosted": {"model": "openai/gpt-4o"}, "new": {"model": "anthropic/c"}},
        }
    )
    assert told(before, after) == [
        "box box-a: url is http://other (before: http://a)",
        "fleet main: box box-b is added, at http://b",
        "provider hosted: model is openai/gpt-4o (before: openai/gpt-4o-mini) (asked by acme)",
        "provider new: is new, and asked for anthropic/c",
        "acme: fallback step 1 (provider hosted): model is openai/gpt-4o (before: openai/gpt-4o-mini)",
    ]
    assert "fleet main: box box-b is removed" in told(after, before)
    assert "provider new: is removed" in told(after, before)


def test_customers_come_and_go_by_name() -> None:
    before, after = policies(), policies(customer="globex", hosted={"allowed": False})
    assert told(before, after) == [
        "acme: is removed: 1 key and adapter acme_v3 are no longer known",
        "globex: new customer: adapter acme_v3, 1 key, may not reach hosted providers",
    ]


def test_a_change_of_the_defaults_is_told_of_everybody_whom_it_reaches() -> None:
    assert told(policies(), policies(defaults={"deadline": "1m"})) == []
    assert told(policies(deadline="9s"), policies(defaults={"deadline": "20s"}, deadline="9s")) == []
    assert told(policies(), policies(defaults={"priority": "high"})) == ["acme: priority is high (before: standard)"]
