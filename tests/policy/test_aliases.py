"""Which adapter an alias stands for: sticky, by weights, moved as little as can be, and the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.errors import PolicyError
from gateway.policy.alias import Alias, named_conversation
from gateway.policy.compile import compile_policy
from gateway.policy.validate import read_folder
from tests.policy.scenery import Folder, customer

weights = st.dictionaries(st.sampled_from(["v1", "v2", "v3", "v4"]), st.integers(0, 1000), min_size=1).filter(
    lambda found: any(found.values())
)
TALKS = [named_conversation(str(number)) for number in range(4000)]


def alias(target: str | dict[str, int], name: str = "acme", customer: str = "acme") -> Alias:
    return Alias.of(customer, name, target)


def first(alias: Alias, talk: bytes) -> str:
    return alias.versions(talk)[0]


@given(weights, st.binary())
def test_a_conversation_always_gets_the_same_version_of_those_that_have_a_weight(
    weights: dict[str, int], talk: bytes
) -> None:
    found = alias(weights).versions(talk)
    assert sorted(found) == sorted(name for name, weight in weights.items() if weight)
    assert found == alias(dict(reversed(weights.items()))).versions(talk)


@pytest.mark.parametrize("percent", [1, 5, 50, 95])
def test_versions_get_their_share_of_the_conversations(percent: int) -> None:
    split = alias({"v3": 100 - percent, "v4": percent})
    got = Counter(first(split, talk) for talk in TALKS)["v4"]
    expected = len(TALKS) * percent / 100
    # Four standard deviations of a binomial count; the hash is fixed, so that this never varies.
    assert abs(got - expected) < 4 * (expected * (1 - percent / 100)) ** 0.5


@given(weights, weights, st.integers(0, 10**9))
def test_when_weights_change_a_conversation_moves_only_to_a_version_whose_share_grew(
    before: dict[str, int], after: dict[str, int], talk: int
) -> None:
    key = named_conversation(str(talk))
    old, new = first(alias(before), key), first(alias(after), key)
    assume(old != new)

    # Of the two only their proportion counts: the new one's has grown.
    assert after[new] * before[old] > before.get(new, 0) * after.get(old, 0)


def test_a_step_of_weights_moves_no_more_conversations_than_the_step_is_large() -> None:
    stages = [alias({"v3": 100 - percent, "v4": percent}) for percent in (0, 5, 20, 100)]
    on_v4 = [{talk for talk in TALKS if first(stage, talk) == "v4"} for stage in stages]
    assert not on_v4[0]
    assert on_v4[0] < on_v4[1] < on_v4[2] < on_v4[3] == set(TALKS)


def test_the_weights_scale_is_of_no_matter_nor_is_their_order() -> None:
    small, large = alias({"v3": 19, "v4": 1}), alias({"v4": 50, "v3": 950})
    assert all(small.versions(talk) == large.versions(talk) for talk in TALKS[:500])


def test_two_aliases_split_independently() -> None:
    one, two = alias({"v3": 1, "v4": 1}), alias({"v3": 1, "v4": 1}, name="acme-beta")
    alike = sum(first(one, talk) == first(two, talk) for talk in TALKS)
    assert 0.45 < alike / len(TALKS) < 0.55


def test_no_process_and_no_hash_seed_finds_another_version() -> None:
    ask = (
        "from gateway.policy.alias import Alias, named_conversation as n;"
        "a = Alias.of('acme', 'acme', {'v3': 60, 'v4': 40});"
        "print(' '.join(a.versions(n(str(i)))[0] for i in range(200)))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", ask], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    here = alias({"v3": 60, "v4": 40})
    assert seen == {" ".join(first(here, talk) for talk in TALKS[:200]) + "\n"}


def test_a_split_that_was_shipped_stays_as_it_was() -> None:
    """Another hash would move every conversation at an upgrade of the gateway."""
    split = alias({"customer_acme_v3": 1, "customer_acme_v4": 1})
    assert "".join(first(split, talk)[-1] for talk in TALKS[:24]) == "443333344433444433333344"


def test_an_alias_with_one_version_asks_no_hash() -> None:
    assert alias("v3").only == alias({"v3": 7, "v4": 0}).only == "v3"
    assert alias({"v3": 7, "v4": 1}).only is None
    assert alias({"v3": 1, "v4": 7}).heaviest == "v4"


def test_an_alias_without_any_weight_is_none() -> None:
    with pytest.raises(ValueError, match="all weights are 0"):
        alias({"v3": 0})


def acme(folder: Folder, aliases: str) -> None:
    text = customer("acme").replace("[acme_v1]", "[acme_v1, acme_v2]")
    folder.write("customers/acme.yaml", f"{text}aliases: {aliases}\n")


def test_aliases_are_compiled_for_their_customer_alone(folder: Folder) -> None:
    acme(folder, "{now: acme_v1, split: {acme_v1: 95, acme_v2: 5}}")
    folder.customer("globex", "aliases: {now: globex_v1}\n")
    found = compile_policy(read_folder(folder.path), version=1, store_id="s", created_s=0, env=None)
    acmes, globexs = found.customers["acme"].aliases, found.customers["globex"].aliases
    assert (acmes["now"].only, globexs["now"].only) == ("acme_v1", "globex_v1")
    assert acmes["split"].weights == {"acme_v1": 95, "acme_v2": 5}
    assert globexs.keys() == {"now"}
    hash(found.customers["acme"])


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        ("{a: acme_v1, b: a}", "a is an alias itself (an alias names adapters only)"),
        ("{a: {acme_v1: 1, a: 1}}", "a is an alias itself"),
        ("{a: {acme_v1: 1, acme_v9: 1}}", "acme_v9 is not one of this customer's adapters (did you mean acme_v2?)"),
        ("{a: globex_v1}", "globex_v1 is not one of this customer's adapters"),
        ("{globex_v1: acme_v1}", "globex_v1 is the name of an adapter"),
        ("{base: acme_v1}", "base is the name of a base model"),
        ("{a: {acme_v1: 0, acme_v2: 0}}", "all weights are 0 (one has to be more)"),
        ("{a: {acme_v1: -1}}", "at least 0"),
        ("{a: {}}", "is empty, and needs at least one entry"),
        ("{a: [acme_v1]}", "an alias is an adapter's name, or a mapping of adapters to weights"),
    ],
)
def test_an_alias_that_cannot_be_resolved_is_refused_with_its_place(folder: Folder, aliases: str, words: str) -> None:
    folder.customer("globex")
    acme(folder, aliases)
    with pytest.raises(PolicyError) as caught:
        read_folder(folder.path)
    (found,) = caught.value.diagnostics
    assert words in str(found)
    assert (found.line, found.key.startswith("aliases")) == (4, True)
