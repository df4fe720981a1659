"""A version is compiled to the same whether the one before it is known or not."""

from __future__ import annotations

import gc
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import PolicyError
from gateway.policy import recompile, uncollected
from gateway.policy.compile import compile_policy
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.policy_set import policy_set_from_document
from gateway.policy.recompile import Compiler
from gateway.policy.versions import Head, StoredVersion

ENV = {"KEY": "secret"}

DIGESTS = tuple(hashlib.sha256(name.encode()).hexdigest() for name in "abcd")
FLEETS: dict[str, Any] = {
    "main": {"base_model": "base", "boxes": {"a": {"url": "http://10.0.0.1:8000"}}},
    "other": {"base_model": "small", "boxes": {"b": {"url": "http://10.0.0.2:8000", "api_key": "${KEY}"}}},
}
STEPS = st.sampled_from(
    [
        {"provider": "hosted"},
        {"provider": "hosted", "system_prompt": "Be brief.", "drop": ["logprobs"]},
        {"base": {}},
        {"static": "Later, please."},
    ]
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "deadline": st.sampled_from(["20s", "1m"]),
        "on_broken_stream": st.sampled_from(["resume", "restart", "error"]),
        "limits": st.sampled_from([{"requests_per_minute": 5}, {"concurrency": 2}]),
        "fallback": st.lists(STEPS, max_size=3),
        "hosted": st.sampled_from([{"allowed": False}, {"allowed": True, "usd_per_day": 5}]),
        "drills": st.sampled_from([{"every": "12h"}, {"every": "never", "share": "1%"}]),
    },
)
ADAPTERS = st.sampled_from(["p1", "q1", "r2", "free", "base"])


@st.composite
def customers(draw: st.DrawFn) -> dict[str, Any]:
    """One that may be wrong by itself, or clash with others, if seldom."""
    name = draw(st.sampled_from("pqrstuvw"))
    mine = st.sampled_from([name + "1", name + "2"])
    adapters = draw(st.lists(mine if draw(st.integers(0, 9)) else ADAPTERS, min_size=1, max_size=2, unique=True))
    found: dict[str, Any] = {"customer": name, "adapters": adapters, **draw(RULES)}
    own = hashlib.sha256(name.encode()).hexdigest()
    key = own if draw(st.integers(0, 9)) else draw(st.sampled_from(DIGESTS))
    if not draw(st.integers(0, 19)):
        found["fallback"] = [{"provider": "elsewhere"}]
    if not draw(st.integers(0, 19)):
        found["deadline"] = "an hour"
    found["api_keys"] = [{"sha256": f"sha256:{key}", "name": "ci", "expires": "2030-01-01"}]
    if draw(st.integers(0, 19)):
        found["fleet"] = draw(st.sampled_from(["main", "other"]))
    if not draw(st.integers(0, 3)):
        found["aliases"] = {draw(st.sampled_from(["latest", "stable", "now", "q1", "base"])): adapters[0]}
    return found


SLIPS = (
    ('"customer":', '"customer":"r","customer":'),
    ('"adapters":', '"deadline":"20s","adapters":'),
    ('"adapters":', '"fallback":[{"static":"\\"customer\\":"}],"adapters":'),
    ('{"deadline":', '{"aliases":{},"deadline":'),
    ('{"deadline":', '{"limits":{"concurrency":1,"customer":"p"},"deadline":'),
    ('{"deadline":', '{"fallback":[{"static":",\\"customer\\":"}],"deadline":'),
    ('{"hosted":{', '{"hosted":{"customer":1,'),
    (',"customer":', ', "customer":'),
    (',"customer":', ',"customer" :'),
)


def _rules_first(one: Any) -> Any:
    if not isinstance(one, dict):
        return one
    own = ("customer", "fleet", "api_keys", "adapters", "aliases")
    return {k: v for k, v in one.items() if k not in own} | {k: one[k] for k in own if k in one}


@st.composite
def histories(draw: st.DrawFn) -> list[bytes]:
    """Documents, each with most of the one before it."""
    found = []
    known: dict[str, Any] = {}
    fleet = {"fleets": FLEETS, "providers": {"hosted": {"model": "openai/gpt-4o-mini", "api_key": "${KEY}"}}}
    defaults: dict[str, Any] = {}
    for _ in range(draw(st.integers(2, 6))):
        for one in draw(st.lists(customers(), max_size=3)):
            known[one["customer"]] = one
        for name in draw(st.sets(st.sampled_from("pqrstuvw"), max_size=2)):
            known.pop(name, None)
        if not draw(st.integers(0, 6)):
            defaults = draw(RULES)
        if not draw(st.integers(0, 6)):
            model = draw(st.sampled_from(["openai/gpt-4o-mini", "mistral/of-unknown-price"]))
            named = draw(st.sampled_from([["hosted"], ["hosted", "elsewhere"]]))
            token = {"name": "ops", "sha256": draw(st.sampled_from(DIGESTS)), "scope": "read"}
            fleet = {"fleets": FLEETS, "providers": {name: {"model": model} for name in named}, "admin_tokens": [token]}
        everybody: list[Any] = [known[name] for name in sorted(known)]
        if everybody and not draw(st.integers(0, 19)):
            everybody.append(draw(st.sampled_from([everybody[0], 5, {}])))
        document = {"format": 1, "fleet": fleet, "defaults": defaults, "customers": everybody}
        written = json.dumps(document)
        if draw(st.booleans()):
            # As releases write it, rules first; seldom also with what they never write.
            document["customers"] = [_rules_first(one) for one in everybody]
            written = json.dumps(document, separators=(",", ":"))
            for was, slip in SLIPS:
                written = written if draw(st.integers(0, 19)) else written.replace(was, slip, 1)
        found.append(written.encode())
    return found


def stored(number: int, document: bytes) -> StoredVersion:
    digest = hashlib.sha256(document).hexdigest()
    return StoredVersion(Head("store", number, digest), 1_000 + number, "", "", document)


def anew(version: StoredVersion) -> CompiledPolicy | str:
    """Compiled by who knows nothing of any other version."""
    head = version.head
    try:
        policy_set = policy_set_from_document(version.document)
        return compile_policy(
            policy_set, version=head.version, store_id=head.store_id, created_s=version.created_s, env=ENV
        )
    except PolicyError as error:
        return str(error)


def again(compiler: Compiler, version: StoredVersion) -> CompiledPolicy | str:
    try:
        return compiler.compile(version)
    except PolicyError as error:
        return str(error)


@settings(max_examples=150)
@given(histories())
def test_what_is_made_of_a_version_is_the_same_whatever_came_before_it(history: list[bytes]) -> None:
    compiler = Compiler(ENV)
    for number, document in enumerate(history, 1):
        version = stored(number, document)
        found, expected = again(compiler, version), anew(version)
        assert found == expected
        if isinstance(found, CompiledPolicy) and isinstance(expected, CompiledPolicy):
            # What no comparison of mappings shows.
            assert list(found.customers) == list(expected.customers)
            assert list(found.keys) == list(expected.keys)


def _document(**customers: dict[str, Any]) -> bytes:
    everybody = [
        {
            "customer": name,
            "adapters": [f"{name}_v1"],
            "api_keys": [hashlib.sha256(name.encode()).hexdigest()],
            **customers[name],
        }
        for name in sorted(customers)
    ]
    fleet = {"fleets": {"main": FLEETS["main"]}, "providers": {}}
    return json.dumps({"format": 1, "fleet": fleet, "defaults": {}, "customers": everybody}).encode()


def test_only_a_customer_that_has_changed_is_compiled_again() -> None:
    compiler = Compiler(ENV)
    first = compiler.compile(stored(1, _document(acme={}, globex={})))
    second = compiler.compile(stored(2, _document(acme={"deadline": "20s"}, globex={}, initech={})))
    assert second.customers["globex"] is first.customers["globex"]
    assert second.customers["acme"].deadline_s == 20
    assert set(second.customers) == {"acme", "globex", "initech"}
    assert second.version == 2


def test_what_a_customer_takes_from_one_that_has_not_changed_is_refused_with_everything_that_is_wrong() -> None:
    compiler = Compiler(ENV)
    compiler.compile(stored(1, _document(acme={}, globex={})))
    wrong = stored(2, _document(acme={}, globex={"adapters": ["acme_v1"], "aliases": {"latest": "nobodys"}}))
    with pytest.raises(PolicyError) as caught:
        compiler.compile(wrong)
    assert str(caught.value) == anew(wrong)
    assert "adapter acme_v1 is taken" in str(caught.value)
    assert "nobodys is not one of this customer's adapters" in str(caught.value)
    # The version before the refused one is still known.
    assert compiler.compile(stored(3, _document(acme={}))).version == 3


def test_no_collection_of_cycles_holds_requests_up_while_many_customers_are_compiled_or_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uncollected, "MANY", 1_000)
    document = _document(**{f"c{number}": {"deadline": f"{number + 1}s"} for number in range(1_000)})
    seen: list[str] = []

    def see(phase: str, _: dict[str, int]) -> None:
        seen.append(phase)

    gc.collect()
    frozen = gc.get_freeze_count()
    gc.callbacks.append(see)
    try:
        compiled = Compiler(ENV).compile(stored(1, document))
        assert not seen
        assert gc.isenabled()
        assert gc.get_freeze_count() - frozen > len(compiled.customers)
    finally:
        gc.callbacks.remove(see)
        gc.unfreeze()


def test_a_version_with_few_changes_is_not_validated_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(ENV)
    compiler.compile(stored(1, _document(acme={}, globex={})))
    monkeypatch.setattr(recompile, "validated", None)
    assert set(compiler.compile(stored(2, _document(acme={}, globex={"deadline": "20s"}))).customers) == {
        "acme",
        "globex",
    }


@pytest.mark.parametrize(
    "slip",
    [
        {"adapters": ["base"]},
        {"fleet": "elsewhere"},
        {"aliases": {"base": "q1"}},
        {"aliases": {"q1": "q1"}},
        {"aliases": {"now": "q2"}},
        {"adapters": ["q1", "q1"]},
        {"adapters": ["p1"]},
        {"customer": "p"},
        {"api_keys": [f"sha256:{DIGESTS[0]}"]},
        {"api_keys": [f"sha256:{DIGESTS[1]}"] * 2},
        {"api_keys": [f"sha256:{DIGESTS[2]}"]},
        {"adapters": [".."]},
        {"api_keys": ["sha256:" + "x" * 64]},
    ],
)
def test_what_is_wrong_with_a_customer_whose_rules_are_known_is_found(slip: dict[str, Any]) -> None:
    first = {"customer": "p", "fleet": "main", "api_keys": [f"sha256:{DIGESTS[0]}"], "adapters": ["p1"]}
    second = {"customer": "q", "fleet": "main", "api_keys": [f"sha256:{DIGESTS[1]}"], "adapters": ["q1"]}

    def version(*everybody: dict[str, Any]) -> StoredVersion:
        fleet = {"fleets": FLEETS, "admin_tokens": [{"name": "ops", "sha256": DIGESTS[2], "scope": "read"}]}
        document = {"format": 1, "fleet": fleet, "defaults": {}, "customers": everybody}
        return stored(1, json.dumps(document, separators=(",", ":")).encode())

    assert again(Compiler(ENV), version(first, second)) == anew(version(first, second))
    refused = again(Compiler(ENV), version(first, {**second, **slip}))
    assert isinstance(refused, str)
    assert refused == anew(version(first, {**second, **slip}))
