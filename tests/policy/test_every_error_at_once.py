"""What is wrong with policies is told at once: a slip in one place hides none in another, and nothing is told twice."""

from __future__ import annotations

import copy
import datetime as dt
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.errors import PolicyError
from gateway.policy.crosscheck import by_name, crosscheck
from gateway.policy.diagnostics import Diagnostic, Finding
from gateway.policy.models import CustomerFile, DefaultsFile, FleetFile
from gateway.policy.salvage import salvage
from gateway.policy.validate import read_folder
from tests.policy.scenery import FLEET, Folder, digest

Files = dict[str, Any]

WHOLE: Files = {
    "fleet.yaml": {
        "fleets": {
            "main": {
                "base_model": "base",
                "boxes": {name: {"url": f"http://{name}:8000"} for name in ("box-a", "box-b", "box-c")},
                "engine": {"max_num_seqs": 64},
            },
            "second": {"base_model": "base2", "boxes": {"box-d": {"url": "http://box-d:8000"}}},
        },
        "providers": {
            "hosted": {"model": "openai/gpt-4o-mini", "api_key": "${KEY}"},
            "other": {"model": "openai/gpt-4o", "api_key": "${KEY}"},
        },
        "admin_tokens": [{"name": "ci", "sha256": digest("ci"), "scope": "read"}],
    },
    "defaults.yaml": {"defaults": {"deadline": "60s", "fallback": [{"provider": "hosted"}]}},
    "customers/acme.yaml": {
        "customer": "acme",
        "fleet": "main",
        "api_keys": [digest("acme")],
        "adapters": ["acme_v1", "acme_v2"],
        "aliases": {"acme": {"acme_v1": 1, "acme_v2": 1}},
        "limits": {"concurrency": 4},
        "hosted": {"usd_per_day": 5.0},
        "fallback": [{"provider": "hosted"}, {"static": "Later."}],
    },
    "customers/globex.yaml": {
        "customer": "globex",
        "fleet": "second",
        "api_keys": [digest("globex"), {"sha256": digest("globex 2"), "name": "ci"}],
        "adapters": ["globex_v1"],
        "aliases": {"globex": "globex_v1"},
        "fallback": [{"provider": "other"}, {"base": {}}],
    },
}

Slip = Callable[[Files], Any]


def fleet(files: Files) -> Any:
    return files["fleet.yaml"]


def box(files: Files, name: str) -> Any:
    return fleet(files)["fleets"]["main"]["boxes"][name]


def acme(files: Files) -> Any:
    return files["customers/acme.yaml"]


def globex(files: Files) -> Any:
    return files["customers/globex.yaml"]


SLIPS: dict[str, Slip] = {
    "unknown key of the file": lambda f: fleet(f).update(xyz=1),
    "unknown key of a fleet": lambda f: fleet(f)["fleets"]["main"].update(modle_path="/x"),
    "rank of a fleet": lambda f: fleet(f)["fleets"]["second"].update(max_lora_rank=17),
    "base model": lambda f: fleet(f)["fleets"]["second"].update(base_model="a b"),
    "address of a box": lambda f: box(f, "box-a").update(url="ftp://x"),
    "slots of a box": lambda f: box(f, "box-b").update(max_loras=0),
    "a box twice": lambda f: fleet(f)["fleets"]["second"]["boxes"].update({"box-c": {"url": "http://else:1"}}),
    "an address twice": lambda f: fleet(f)["fleets"]["second"]["boxes"].update({"box-e": {"url": "http://box-c:8000"}}),
    "a secret in env": lambda f: fleet(f)["fleets"]["main"]["engine"].update(env={"HF_TOKEN": "x"}),
    "a queue too short": lambda f: fleet(f)["fleets"]["main"]["engine"].update(max_queued_requests=1),
    "type of an engine's key": lambda f: fleet(f)["fleets"]["main"]["engine"].update(dtype="int4"),
    "a provider without a model": lambda f: fleet(f)["providers"]["hosted"].pop("model"),
    "a provider that is text": lambda f: fleet(f)["providers"].update(other="openai/gpt-4o"),
    "scope of a token": lambda f: fleet(f)["admin_tokens"][0].update(scope="rite"),
    "a customer's key as a token": lambda f: fleet(f)["admin_tokens"].append(
        {"name": "x", "sha256": digest("globex"), "scope": "read"}
    ),
    "deadline of all": lambda f: f["defaults.yaml"]["defaults"].update(deadline=60),
    "fallback of all": lambda f: f["defaults.yaml"]["defaults"]["fallback"].append({"provider": "hostd"}),
    "unknown key of acme": lambda f: acme(f).update(ttft_buget="1s"),
    "fleet of acme": lambda f: acme(f).update(fleet="man"),
    "a bad adapter": lambda f: acme(f)["adapters"].append("a b"),
    "an adapter that is taken": lambda f: globex(f)["adapters"].append("acme_v1"),
    "an alias to nowhere": lambda f: acme(f)["aliases"].update(x="acme_v9"),
    "an alias by a bad weight": lambda f: acme(f)["aliases"]["acme"].update(acme_v1=-1),
    "an alias that is a number": lambda f: acme(f)["aliases"].update(y=5),
    "a key that is taken": lambda f: globex(f)["api_keys"].append(digest("acme")),
    "a key in the clear": lambda f: acme(f)["api_keys"].append("fs-secret"),
    "a key without a digest": lambda f: globex(f)["api_keys"][1].pop("sha256"),
    "an unknown provider": lambda f: acme(f)["fallback"].append({"provider": "hostd"}),
    "a step without a kind": lambda f: globex(f)["fallback"].append({"povider": "hosted"}),
    "no limit": lambda f: acme(f)["limits"].update(concurrency=0),
    "unknown key of hosted": lambda f: acme(f)["hosted"].update(alowed=True),
    "a budget that is no duration": lambda f: globex(f).update(ttft_budget=2),
}


def errors(files: Files) -> set[tuple[str, str, str]]:
    """Without places in lists and lines, which other slips may move."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "customers").mkdir()
        for path, values in files.items():
            text = values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False)
            (folder / path).write_text(text, "utf-8")
        try:
            read_folder(folder)
        except PolicyError as error:
            found = [d for d in error.diagnostics if isinstance(d, Diagnostic) and d.severity == "error"]
            told = [(str(Path(d.file).relative_to(folder)), re.sub(r"\d+", "", d.key), d.message) for d in found]
            assert len(told) == len(set(told)), told
            return set(told)
        return set()


def slipped(*names: str) -> Files:
    files = copy.deepcopy(WHOLE)
    for name in names:
        SLIPS[name](files)
    return files


@cache
def alone(name: str) -> set[tuple[str, str, str]]:
    return errors(slipped(name))


@pytest.mark.parametrize("name", SLIPS)
def test_each_slip_by_itself_is_one_error(name: str) -> None:
    assert len(alone(name)) == 1


@given(st.sets(st.sampled_from(sorted(SLIPS)), min_size=2))
def test_slips_hide_none_of_each_other_and_nothing_follows_from_them(names: set[str]) -> None:
    # In the order of the catalogue, so that what is appended to a list is there in one order.
    together = errors(slipped(*(name for name in SLIPS if name in names)))
    assert together == set().union(*map(alone, names))


def test_nothing_is_wrong_with_the_whole() -> None:
    assert errors(WHOLE) == set()


def faults(folder: Folder) -> list[Diagnostic]:
    with pytest.raises(PolicyError) as caught:
        read_folder(folder.path)
    return [d for d in caught.value.diagnostics if isinstance(d, Diagnostic)]


CROSS = """\
fleet: man
fallback: [{provider: hostd}]
aliases: {a: initech_v9, acme_v1: initech_v1}
"""


def write_initech(folder: Folder, extra: str = "") -> None:
    folder.write(
        "customers/initech.yaml",
        f'customer: initech\napi_keys: ["{digest("key-acme")}"]\nadapters: [initech_v1, acme_v1, base]\n{CROSS}{extra}',
    )


def test_an_unknown_key_hides_nothing_of_what_else_is_wrong_with_a_customer(folder: Folder) -> None:
    write_initech(folder)
    before = [(d.key, d.message) for d in faults(folder)]
    assert len(before) == 7
    write_initech(folder, "ttft_buget: 1s\n")
    assert [(d.key, d.message) for d in faults(folder)] == [*before, ("ttft_buget", "unknown key")]


def test_a_typo_in_the_fleet_hides_nothing_of_what_is_wrong_with_customers(folder: Folder) -> None:
    write_initech(folder)
    before = [(d.key, d.message) for d in faults(folder)]
    folder.write("fleet.yaml", FLEET + "x: 1\n")
    assert [(d.key, d.message) for d in faults(folder)] == [*before, ("x", "unknown key")]


@pytest.mark.parametrize("text", [None, "fleets: [\n", "- x\n", "fleets: 5\nproviders: 5\n"])
def test_without_a_usable_fleet_all_is_told_that_needs_none(folder: Folder, text: str | None) -> None:
    write_initech(folder)
    if text is None:
        (folder.path / "fleet.yaml").unlink()
    else:
        folder.write("fleet.yaml", text)
    of_customers = [d for d in faults(folder) if "initech" in d.file]
    assert [d.key for d in of_customers] == ["api_keys[0]", "adapters[1]", "aliases.a", "aliases.acme_v1"]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("adapters: [acme_v1]\nflet: main\n", ["flet: unknown key"]),
        (
            "fleet: main\nadapers: [acme_v2]\naliases: {a: acme_v2}\n",
            ["adapters: is missing", "adapers: unknown key"],
        ),
        (
            "fleet: main\nadapters: [acme_v1]\nhosted: {alowed: false}\nfallback: [{povider: x}]\n",
            ["hosted.alowed: unknown key", "fallback[0]: a step has one of the keys provider, base and static"],
        ),
        ("fleet: main\nadapters: [acme_v1]\ndeadlin: 9s\nttft_budget: 60s\n", ["deadlin: unknown key"]),
        ("fleet: main\nadapters: [acme_v1]\nfallback:\n", ["fallback: has no value"]),
        ("fleet:\nadapters: [acme_v1]\n", ["fleet: has no value"]),
    ],
)
def test_what_only_follows_from_a_slip_is_not_said(folder: Folder, written: str, told: list[str]) -> None:
    second = '  second: {base_model: b2, boxes: {box-c: {url: "http://10.0.0.13:8000"}}}\nproviders:\n'
    folder.write("fleet.yaml", FLEET.replace("providers:\n", second))
    folder.write("customers/acme.yaml", f'customer: acme\napi_keys: ["{digest("k")}"]\n{written}')
    assert [f"{d.key}: {d.message}" for d in faults(folder)] == told


def test_a_bad_name_is_never_what_was_probably_meant(folder: Folder) -> None:
    folder.write(
        "customers/acme.yaml",
        f'customer: acme\napi_keys: ["{digest("k")}"]\nadapters: [acme_v1, "acme v2"]\naliases: {{a: acme_v2}}\n',
    )
    hints = [d.hint for d in faults(folder) if d.key == "aliases.a"]
    assert hints == ["did you mean acme_v1?"]


def places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Each mapping and list inside, with each key."""
    stack = [values]
    while stack:
        one = stack.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else []
        for key in keys:
            yield one, key
            stack.append(one[key])


RUBBISH: list[Any] = [None, [], {}, "", "x y", -1, 1.5, True, [None], {"x": None}, [[1]], {"a b": {"c": 1}}]


def read_anyhow(files: Files) -> list[Finding]:
    fleet = salvage(files["fleet.yaml"], FleetFile, "fleet.yaml").model
    defaults = salvage(files["defaults.yaml"], DefaultsFile, "defaults.yaml").model
    customers = tuple(salvage(files[f"customers/{name}.yaml"], CustomerFile, name).model for name in ("acme", "globex"))
    return list(crosscheck(fleet, defaults.defaults, customers, by_name(customers), today=dt.date.max))


@pytest.mark.parametrize("file", ["fleet.yaml", "defaults.yaml", "customers/acme.yaml"])
def test_whatever_stands_anywhere_the_rest_is_read_and_checked(file: str) -> None:
    for number in range(len(list(places(WHOLE[file])))):
        for rubbish in RUBBISH:
            files = slipped("a customer's key as a token")
            parent, key = list(places(files[file]))[number]
            parent[key] = rubbish
            if file != "fleet.yaml":
                assert "this is a customer's API key" in [found.message for found in read_anyhow(files)]
            else:
                read_anyhow(files)


@pytest.mark.parametrize("model", [FleetFile, DefaultsFile, CustomerFile])
def test_every_key_of_the_models_may_be_rubbish(model: type[BaseModel]) -> None:
    for name in model.model_fields:
        for rubbish in RUBBISH:
            found = salvage({name: rubbish}, model, "x.yaml").model
            assert all(hasattr(found, field) for field in model.model_fields)
