"""Each key that policies may have has words for its change, in the terms of the YAML."""

from __future__ import annotations

import copy
import datetime as dt
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.policy.difference import difference
from gateway.policy.engine_options import EngineOptions
from gateway.policy.models import (
    AdminToken,
    ApiKeyEntry,
    Box,
    CustomerFile,
    DefaultsFile,
    Drills,
    Fleet,
    FleetFile,
    Hosted,
    Limits,
    Price,
    Provider,
    ProviderStep,
    Rules,
    StaticStep,
    Sync,
)
from gateway.policy.policy_set import PolicySet
from tests.policy.scenery import digest

LEFT_OUT: Any = object()
TODAY = dt.date(2026, 6, 1)

FLEET: Any = {
    "fleets": {
        "main": {"base_model": "base", "boxes": {"box-a": {"url": "http://a", "engine": {}}}, "engine": {}, "sync": {}},
        "other": {"base_model": "base2", "boxes": {"box-z": {"url": "http://z"}}},
    },
    "providers": {
        "hosted": {"model": "openai/a", "price": {"input_per_million": 1.0, "output_per_million": 2.0}},
        "second": {"model": "openai/b"},
    },
    "admin_tokens": [{"name": "dash", "sha256": digest("dash"), "scope": "read"}],
}
ACME: Any = {
    "customer": "acme",
    "fleet": "main",
    "api_keys": [{"sha256": digest("k")}],
    "adapters": ["acme_v3", "acme_v4"],
    "fallback": [{"provider": "hosted"}, {"static": "Later."}],
    "limits": {},
    "hosted": {},
    "drills": {},
}

Row = tuple[Any, Any, str]
"""The value before, the value after, and the words for it without their subject."""

LONG = "word " * 30

BOX = "box box-a: "
MAIN = "fleet main: "
HOSTED = "provider hosted: "
ASKED = " (asked by acme)"
ACME_SAYS = "acme: "
STEP_1, STEP_2 = "acme: fallback step 1 (provider hosted): ", "acme: fallback step 2 (a text): "

OF_THE_FLEET = "(before: as the fleet's)"

TABLE: dict[type[BaseModel], tuple[str, tuple[str | int, ...], dict[str, Row]]] = {
    Box: (BOX, ("fleets", "main", "boxes", "box-a"), {
        "url": ("http://a", "http://b", "url is http://b (before: http://a)"),
        "max_loras": (LEFT_OUT, 4, "max_loras is 4 (before: 8)"),
        "max_cpu_loras": (LEFT_OUT, 99, "max_cpu_loras is 99 (before: 64)"),
        "api_key": (LEFT_OUT, "${K}", "api_key is ${K} (before: not set)"),
    }),
    Fleet: (MAIN, ("fleets", "main"), {
        "base_model": ("base", "base3", "base_model is base3 (before: base)"),
        "model_path": (LEFT_OUT, "/m", "model_path is /m (before: not set)"),
        "adapter_root": ("/a", "/b", "adapter_root is /b (before: /a)"),
        "adapter_paths": ({"x": "/x"}, {"x": "/y"}, "adapter_paths.x is /y (before: /x)"),
        "max_lora_rank": (LEFT_OUT, 32, "max_lora_rank is 32 (before: 16)"),
    }),
    Sync: (MAIN, ("fleets", "main", "sync"), {
        "watch": (LEFT_OUT, True, "sync.watch is true (before: false)"),
        "every": (LEFT_OUT, "90s", "sync.every is 90s (before: 30s)"),
        "grace": ("2m", "500ms", "sync.grace is 500ms (before: 2m)"),
    }),
    EngineOptions: (MAIN, ("fleets", "main", "engine"), {
        "gpu_memory_utilization": (LEFT_OUT, 0.8, "engine.gpu_memory_utilization is 0.8 (before: not set)"),
        "max_model_len": (4096, 8192, "engine.max_model_len is 8192 (before: 4096)"),
        "max_num_seqs": (LEFT_OUT, 64, "engine.max_num_seqs is 64 (before: not set)"),
        "max_queued_requests": (LEFT_OUT, 64, "engine.max_queued_requests is 64 (before: not set)"),
        "max_queued_tokens": (LEFT_OUT, 64, "engine.max_queued_tokens is 64 (before: not set)"),
        "tensor_parallel_size": (LEFT_OUT, 2, "engine.tensor_parallel_size is 2 (before: not set)"),
        "dtype": ("half", "auto", "engine.dtype is auto (before: half)"),
        "tool_call_parser": (LEFT_OUT, "llama3_json", "engine.tool_call_parser is llama3_json (before: not set)"),
        "chat_template": (LEFT_OUT, "/t", "engine.chat_template is /t (before: not set)"),
        "register_adapters": (LEFT_OUT, False, "engine.register_adapters is false (before: true)"),
        "runtime_loading": (LEFT_OUT, False, "engine.runtime_loading is false (before: true)"),
        "reload_room": (LEFT_OUT, 9, "engine.reload_room is 9 (before: not set)"),
        "drain": (LEFT_OUT, "1m", "engine.drain is 1m (before: 30s)"),
        "listen": (LEFT_OUT, "0.0.0.0", "engine.listen is 0.0.0.0 (before: not set)"),
        "env": ({"A": "1"}, {"A": "2"}, "engine.env.A is 2 (before: 1)"),
        "extra": (LEFT_OUT, ["--x", "1"], "engine.extra is --x, 1 (before: nothing)"),
    }),
    Provider: (HOSTED, ("providers", "hosted"), {
        "model": ("openai/a", "openai/c", "model is openai/c (before: openai/a)" + ASKED),
        "api_base": (LEFT_OUT, "https://x", "api_base is https://x (before: not set)" + ASKED),
        "api_key": ("${A}", "${B}", "api_key is ${B} (before: ${A})" + ASKED),
        "max_concurrency": (LEFT_OUT, 3, "max_concurrency is 3 (before: 64)" + ASKED),
    }),
    Price: (HOSTED, ("providers", "hosted", "price"), {
        "input_per_million": (1.0, 0.15, "price.input_per_million is 0.15 (before: 1)" + ASKED),
        "output_per_million": (2.0, 12345678.5, "price.output_per_million is 12345678.5 (before: 2)" + ASKED),
        "cached_input_per_million": (0.1, 0.2, "price.cached_input_per_million is 0.2 (before: 0.1)" + ASKED),
    }),
    AdminToken: ("admin token dash: ", ("admin_tokens", 0), {
        "name": ("old", "dash", "was called old before"),
        "sha256": (digest("a"), digest("b"), f"is another token, {digest('b')[:15]}… (before: {digest('a')[:15]}…)"),
        "scope": ("read", "write", "may now write (before: read only)"),
        "expires": (LEFT_OUT, dt.date(2027, 1, 1), "is valid until 2027-01-01 (before: does not expire)"),
    }),
    FleetFile: ("", (), {}),
    DefaultsFile: ("", (), {}),
    CustomerFile: (ACME_SAYS, (), {
        "customer": (LEFT_OUT, LEFT_OUT, ""),
        "fleet": ("main", "other", "fleet is other (before: main)"),
        "adapters": (["a"], ["a", "b"], "adapter b is added"),
        "aliases": ({"x": "acme_v3"}, {"x": "acme_v4"}, "alias x leads to acme_v4 (before: acme_v3)"),
    }),
    Rules: (ACME_SAYS, (), {
        "ttft_budget": (LEFT_OUT, "1500ms", "ttft_budget is 1500ms (before: 2s)"),
        "plain_budget": ("10s", "20s", "plain_budget is 20s (before: 10s)"),
        "deadline": (LEFT_OUT, "2m", "deadline is 2m (before: 1m)"),
        "stall_timeout": (LEFT_OUT, "5s", "stall_timeout is 5s (before: 10s)"),
        "on_broken_stream": (LEFT_OUT, "error", "on_broken_stream is error (before: resume)"),
        "seed_streams": (LEFT_OUT, True, "seed_streams is true (before: false)"),
        "priority": ("low", "high", "priority is high (before: low)"),
    }),
    Limits: (ACME_SAYS, ("limits",), {
        "requests_per_minute": (5, 6, "limits.requests_per_minute is 6 (before: 5)"),
        "tokens_per_minute": (LEFT_OUT, 7, "limits.tokens_per_minute is 7 (before: no limit)"),
        "concurrency": (7, LEFT_OUT, "limits.concurrency is no limit (before: 7)"),
    }),
    Hosted: (ACME_SAYS, ("hosted",), {
        "allowed": (False, True, "may now reach hosted providers, for any amount a day"),
        "usd_per_day": (LEFT_OUT, 5.0, "may spend 5 USD a day at hosted providers (before: any amount)"),
    }),
    Drills: (ACME_SAYS, ("drills",), {
        "every": (LEFT_OUT, "never", "drills.every is never (before: 1d)"),
        "share": (LEFT_OUT, "0.5%", "drills.share is 0.5% (before: not set)"),
    }),
    ProviderStep: (STEP_1, ("fallback", 0), {
        "provider": ("second", "hosted",
                     "fallback is provider hosted, then a text (before: provider second, then a text)"),
        "system_prompt": (f"{LONG}A", f"{LONG}B", f"system_prompt is another text: {LONG[:59]}…"),
        "drop": (LEFT_OUT, ["seed", "logprobs"], "drop is logprobs, seed (before: nothing)"),
        "model": (LEFT_OUT, "openai/z", "model is openai/z (before: openai/a)"),
    }),
    StaticStep: (STEP_2, ("fallback", 1), {
        "static": ("Later.", "Soon,\nor so.\n", "static is Soon, or so. (before: Later.)"),
        "even_for_tools": (LEFT_OUT, True, "even_for_tools is true (before: false)"),
    }),
    ApiKeyEntry: (ACME_SAYS, ("api_keys", 0), {
        "sha256": (digest("k"), digest("l"), f"one key is added ({digest('l')[:15]}…)"),
        "name": (LEFT_OUT, "ci", f"key {digest('k')[:15]}… is called ci now"),
        "expires": (LEFT_OUT, dt.date(2020, 1, 1),
                    f"key {digest('k')[:15]}… is valid until 2020-01-01, which is over (before: does not expire)"),
    }),
}  # fmt: skip


def of(values: Any, where: tuple[str | int, ...], key: str, value: Any) -> Any:
    """A copy with another value at one place."""
    found = copy.deepcopy(values)
    inner = found
    for part in where:
        inner = inner[part]
    if value is LEFT_OUT:
        inner.pop(key, None)
    else:
        inner[key] = value
    return found


def policies(fleet: Any = FLEET, acme: Any = ACME, defaults: Any = None) -> PolicySet:
    customers = (CustomerFile.model_validate(acme),)
    return PolicySet(FleetFile.model_validate(fleet), Rules.model_validate(defaults or {}), customers)


def told(before: PolicySet, after: PolicySet) -> list[str]:
    return [f"{change.subject}: {change.words}" for change in difference(before, after, today=TODAY)]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from models_in(inner)


def all_models() -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = set()
    new: list[type[BaseModel]] = [FleetFile, DefaultsFile, CustomerFile, Rules]
    while new:
        model = new.pop()
        found.add(model)
        new += [one for info in model.model_fields.values() for one in models_in(info.annotation) if one not in found]
    return found


def own_fields(model: type[BaseModel]) -> set[str]:
    """Those that are not told by what is in them, nor by the model that it takes after."""
    inherited = Rules.model_fields.keys() if model is CustomerFile else set()
    return {
        name
        for name, info in model.model_fields.items()
        if name not in inherited and not any(models_in(info.annotation))
    }


ROWS = [
    pytest.param(model, key, row, id=f"{model.__name__}.{key}")
    for model, (_, _, rows) in TABLE.items()
    for key, row in rows.items()
    if (model, key) != (CustomerFile, "customer")  # another name is another customer
]


def test_every_key_of_every_model_is_here() -> None:
    keys = {(model.__name__, key) for model in all_models() for key in own_fields(model)}
    assert keys == {(model.__name__, key) for model, (_, _, rows) in TABLE.items() for key in rows}


OURS = re.compile(r"[{}\[\]'\"]|None|True|False|\bdrill_|_s\b|is another\b(?! text| token)")


def both_ways(model: type[BaseModel], key: str, row: Row) -> tuple[list[str], list[str]]:
    _, where, _ = TABLE[model]
    before, after, _ = row
    if where[:1] in (("fleets",), ("providers",), ("admin_tokens",)):
        pair = [policies(fleet=of(FLEET, where, key, value)) for value in (before, after)]
    else:
        pair = [policies(acme=of(ACME, where, key, value)) for value in (before, after)]
    return told(*pair), told(pair[1], pair[0])


@pytest.mark.parametrize(("model", "key", "row"), ROWS)
def test_its_change_is_said_in_the_terms_of_the_yaml(model: type[BaseModel], key: str, row: Row) -> None:
    subject = TABLE[model][0]
    said, _ = both_ways(model, key, row)
    if key == "provider":
        subject = ACME_SAYS
    assert subject + row[2] in said


@pytest.mark.parametrize(("model", "key", "row"), ROWS)
def test_no_word_is_one_of_the_programs_own(model: type[BaseModel], key: str, row: Row) -> None:
    for said in both_ways(model, key, row):
        assert said
        for line in said:
            assert not OURS.search(re.sub(r"\$\{[A-Z]+\}", "", line)), line
            assert not re.search(r"[0-9a-f]{16}", line), f"a whole hash in {line}"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([], [("ci", "read", None)], ["ci: new, may read"]),
        ([], [("ci", "write", dt.date(2020, 1, 1))], [
            "ci: new, may read and write, until 2020-01-01, which is over"
        ]),
        ([("ci", "write", None)], [], ["ci: is removed, and may no longer read or write"]),
        ([("ci", "write", None)], [("ci", "read", None)], ["ci: may now only read (before: write too)"]),
    ],
)  # fmt: skip
def test_rights_to_the_admin_api_are_told_by_whose_they_are(before: Any, after: Any, words: list[str]) -> None:
    def with_tokens(found: Any) -> PolicySet:
        tokens = [{"name": n, "sha256": digest(n), "scope": s, "expires": e} for n, s, e in found]
        return policies(fleet=FLEET | {"admin_tokens": tokens})

    assert told(with_tokens(before), with_tokens(after)) == [f"admin token {line}" for line in words]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"usd_per_day": 5.0}, {"allowed": False}, ["may no longer reach hosted providers"]),
        ({"allowed": False}, {"usd_per_day": 5.0}, ["may now reach hosted providers, for 5 USD a day"]),
        ({"allowed": False}, {"allowed": False, "usd_per_day": 5.0}, [
            "might spend 5 USD a day (before: any amount), were it allowed to reach hosted providers"
        ]),
    ],
)  # fmt: skip
def test_what_may_be_spent_where_nothing_may_be_spent_is_not_said_as_if_it_might(
    before: Any, after: Any, words: list[str]
) -> None:
    said = told(policies(acme=ACME | {"hosted": before}), policies(acme=ACME | {"hosted": after}))
    assert [line for line in said if "fallback" not in line] == [f"acme: {line}" for line in words]


def test_the_engine_of_a_box_is_told_beside_its_fleets() -> None:
    def box(engine: Any) -> PolicySet:
        return policies(fleet=of(FLEET, ("fleets", "main", "boxes", "box-a"), "engine", engine))

    assert told(box({}), box({"max_num_seqs": 64, "env": {}})) == [
        f"{BOX}engine.max_num_seqs is 64 {OF_THE_FLEET}",
        f"{BOX}engine.env is nothing {OF_THE_FLEET}",
    ]
    assert told(box(LEFT_OUT), box({})) == []


def test_a_price_is_told_key_by_key() -> None:
    price = {"input_per_million": 0.15, "output_per_million": 0.6}
    without, with_price = (
        policies(fleet=of(FLEET, ("providers", "hosted"), "price", value)) for value in (LEFT_OUT, price)
    )
    assert told(without, with_price) == [
        f"{HOSTED}price.input_per_million is 0.15 (before: from LiteLLM's price map){ASKED}",
        f"{HOSTED}price.output_per_million is 0.6 (before: from LiteLLM's price map){ASKED}",
        f"{HOSTED}price.cached_input_per_million is 0.15 (before: from LiteLLM's price map){ASKED}",
    ]
    assert f"{HOSTED}price.output_per_million is from LiteLLM's price map (before: 0.6){ASKED}" in told(
        with_price, without
    )
