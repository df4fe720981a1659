"""What an alias stood for in the version before stays behind it, and nobody else's adapter ever does."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.compile import compile_policy
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.models import CustomerFile, FleetFile, Rules
from gateway.policy.policy_set import PolicySet
from gateway.policy.succession import MOST, with_predecessors

DIGEST = "sha256:" + "9f" * 32
Target = str | dict[str, int]


def policy(**customers: tuple[list[str], Mapping[str, Target]]) -> CompiledPolicy:
    """By customer, its adapters and aliases."""
    boxes = {"a": {"url": "http://127.0.0.1:1"}}
    files = [
        CustomerFile.model_validate(
            {
                "customer": name,
                "api_keys": [DIGEST] if name == "acme" else [],
                "adapters": adapters,
                "aliases": dict(aliases),
            }
        )
        for name, (adapters, aliases) in customers.items()
    ]
    fleet = FleetFile.model_validate({"fleets": {"main": {"base_model": "base", "boxes": boxes}}})
    return compile_policy(PolicySet(fleet, Rules(), tuple(files)), version=1, store_id="s", created_s=0, env={})


def behind(compiled: CompiledPolicy) -> tuple[str, ...]:
    return compiled.customers["acme"].aliases["acme"].predecessors


def test_v4_is_stood_in_for_by_v3_that_no_policy_names_any_more() -> None:
    before = policy(acme=(["v3"], {"acme": "v3"}))
    after = with_predecessors(policy(acme=(["v4"], {"acme": "v4"})), before)
    acme = after.customers["acme"]
    assert acme.aliases["acme"].versions(b"") == ("v4", "v3")
    assert (acme.adapters, acme.askable) == ({"v4"}, {"v3", "v4"})
    [key] = after.keys.values()
    assert key.customer is acme


def test_it_stays_over_versions_that_change_something_else_until_the_alias_names_it_again() -> None:
    first = policy(acme=(["v3"], {"acme": "v3"}))
    second = with_predecessors(policy(acme=(["v4"], {"acme": "v4"})), first)
    third = with_predecessors(policy(acme=(["v4"], {"acme": "v4"}), globex=(["g1"], {})), second)
    assert behind(third) == ("v3",)
    taken_out = with_predecessors(policy(acme=(["v3", "v4"], {"acme": {"v4": 1, "v3": 0}})), third)
    assert behind(taken_out) == ()


def test_another_customers_adapter_never_stands_in() -> None:
    before = policy(acme=(["v3"], {"acme": "v3"}))
    after = with_predecessors(policy(acme=(["v4"], {"acme": "v4"}), globex=(["v3"], {})), before)
    assert behind(after) == ()
    again = with_predecessors(policy(acme=(["v4"], {"acme": "v4"})), after)
    assert behind(again) == ()


def test_without_a_change_of_aliases_the_policy_is_the_very_same() -> None:
    before, after = (policy(acme=(["v3"], {"acme": "v3"})) for _ in range(2))
    assert with_predecessors(after, before) is after
    assert with_predecessors(after, None) is after


adapters = st.sampled_from(["v1", "v2", "v3", "v4", "v5"])


@given(
    st.lists(
        st.tuples(
            st.dictionaries(adapters, st.integers(0, 3), min_size=1).filter(lambda weights: any(weights.values())),
            st.sets(adapters),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_versions_follow_one_another_only_the_aliass_own_past_stands_in(
    history: list[tuple[dict[str, int], set[str]]],
) -> None:
    current: CompiledPolicy | None = None
    past: set[str] = set()
    for weights, taken in history:
        others = sorted(taken - weights.keys())
        found = policy(acme=(sorted(weights), {"acme": weights}), globex=(others, {}))
        current = with_predecessors(found, current)
        names = behind(current)
        assert len(names) == len(set(names)) <= MOST
        assert set(names) <= past - weights.keys() - set(others)
        past |= {name for name, weight in weights.items() if weight}
