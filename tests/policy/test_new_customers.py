"""`failsoft policies new` and `new-key`: files that hold together at once, and keys that are shown once."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.key_insertion import NoPlace, with_key
from gateway.policy.models import CustomerFile
from gateway.policy.new_customer import key_entry
from gateway.policy.schema import schema_text
from gateway.policy.source import read_yaml
from gateway.policy.validate import read_folder
from tests.policy.scenery import FLEET, Folder, digest


def file_of(folder: Folder, name: str) -> str:
    return (folder.path / "customers" / f"{name}.yaml").read_text()


def test_a_new_customers_file_holds_together_and_its_key_is_shown_once(policies: Any, folder: Folder) -> None:
    ran = policies("new", "initech", "--dir", folder.path)
    assert ran.status == 0
    key = ran.out.strip()
    assert re.fullmatch(r"fs-[\w-]{43}", key)
    assert "kept nowhere" in ran.err
    assert key not in ran.err
    assert key not in file_of(folder, "initech")
    assert digest(key) in file_of(folder, "initech")
    assert policies("validate", folder.path).status == 0
    (initech,) = [one for one in read_folder(folder.path).customers if one.customer == "initech"]
    assert initech.adapters == ["customer_initech_v1"]


def test_an_editor_finds_the_schema_that_the_file_names(policies: Any, folder: Folder) -> None:
    policies("new", "initech", "--dir", folder.path)
    first = file_of(folder, "initech").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../schema.json"
    assert (folder.path / "schema.json").read_text() == schema_text()


def test_every_key_is_there_as_an_example_that_is_valid_when_it_is_uncommented(policies: Any, folder: Folder) -> None:
    policies("new", "initech", "--dir", folder.path)
    head, _, examples = file_of(folder, "initech").partition("# All below")
    lines = [line.removeprefix("# ") for line in examples.splitlines()[1:]]
    assert not any(line.startswith("#") for line in lines)
    folder.write("customers/initech.yaml", head + "\n".join(lines) + "\n")
    (initech,) = [one for one in read_folder(folder.path).customers if one.customer == "initech"]
    assert initech.model_fields_set >= CustomerFile.model_fields.keys() - {"fleet"}
    assert policies("validate", folder.path).status == 0


def test_what_is_there_is_never_written_over(policies: Any, folder: Folder) -> None:
    before = file_of(folder, "acme")
    ran = policies("new", "acme", "--dir", folder.path)
    assert (ran.status, ran.out) == (1, "")
    assert "is there already" in ran.err
    assert file_of(folder, "acme") == before


@pytest.mark.parametrize("name", ["../acme", "a b", ".x", ""])
def test_a_name_that_cannot_be_a_customers_is_misuse(policies: Any, folder: Folder, name: str) -> None:
    assert policies("new", name, "--dir", folder.path).status == 2


def test_a_folder_that_is_not_there_is_misuse(policies: Any, folder: Folder) -> None:
    assert policies("new", "initech", "--dir", folder.path / "nowhere").status == 2


def test_an_adapter_of_another_customer_is_refused_before_anything_is_written(policies: Any, folder: Folder) -> None:
    ran = policies("new", "initech", "--adapter", "acme_v1", "--dir", folder.path)
    assert (ran.status, ran.out) == (1, "")
    assert "adapter acme_v1 is taken" in ran.err
    assert not (folder.path / "customers" / "initech.yaml").exists()


def test_where_there_are_several_fleets_one_has_to_be_chosen(policies: Any, folder: Folder) -> None:
    other = '  other:\n    base_model: base2\n    boxes:\n      box-c: {url: "http://10.0.0.13:8000"}\nproviders:'
    folder.write("fleet.yaml", FLEET.replace("providers:", other))
    folder.customer("acme", "fleet: main\n")
    ran = policies("new", "initech", "--dir", folder.path)
    assert ran.status == 2
    assert "main or other" in ran.err
    assert policies("new", "initech", "--fleet", "other", "--dir", folder.path).status == 0
    assert policies("validate", folder.path).status == 0


def test_a_further_key_is_added_and_all_else_stays_as_it_was_written(policies: Any, folder: Folder) -> None:
    policies("new", "initech", "--dir", folder.path)
    before = file_of(folder, "initech")
    ran = policies("new-key", "initech", "--name", "ci", "--expires", "2199-01-01", "--dir", folder.path)
    assert ran.status == 0
    after = file_of(folder, "initech").splitlines()
    (added,) = [line for line in after if line not in before.splitlines()]
    assert added == f'  - {{sha256: "{digest(ran.out.strip())}", name: ci, expires: 2199-01-01}}'
    assert [line for line in after if line != added] == before.splitlines()
    assert policies("validate", folder.path).status == 0
    again = policies("new-key", "initech", "--name", "ci", "--dir", folder.path)
    assert again.status == 1
    assert "has a key ci already" in again.err


def test_the_facts_are_to_be_had_as_json(policies: Any, folder: Folder) -> None:
    found = policies("new", "initech", "--dir", folder.path, "--json").json
    assert found["sha256"] == "sha256:" + hashlib.sha256(found["key"].encode()).hexdigest()
    more = policies("new-key", "initech", "--dir", folder.path, "--json").json
    assert more["sha256"] in file_of(folder, "initech")


@pytest.mark.parametrize("day", ["2020-01-01", "soon"])
def test_a_day_that_is_over_or_none_is_misuse(policies: Any, folder: Folder, day: str) -> None:
    assert policies("new-key", "acme", "--expires", day, "--dir", folder.path).status == 2


def test_a_customer_that_there_is_not_gets_no_key(policies: Any, folder: Folder) -> None:
    ran = policies("new-key", "initech", "--dir", folder.path)
    assert (ran.status, ran.out) == (1, "")
    assert "failsoft policies new initech" in ran.err


ENTRY = key_entry(digest("new"), "new", None)
OLD = digest("old")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'api_keys: ["{OLD}"]\nx: 1\n', f'api_keys: [{ENTRY}, "{OLD}"]\nx: 1\n'),
        ("api_keys: []  # none yet\n", f"api_keys: [{ENTRY}]  # none yet\n"),
        (f'api_keys:\n- "{OLD}"  # the first\n\n# more\nx: 1\n',
         f'api_keys:\n- "{OLD}"  # the first\n- {ENTRY}\n\n# more\nx: 1\n'),
        (f'api_keys:\n  - sha256: "{OLD}"\n    name: a\nx: 1',
         f'api_keys:\n  - sha256: "{OLD}"\n    name: a\n  - {ENTRY}\nx: 1'),
        (f'x: 1\napi_keys:\n  - "{OLD}"', f'x: 1\napi_keys:\n  - "{OLD}"\n  - {ENTRY}\n'),
        (f'{{"x": 1, "api_keys": [\n  "{OLD}"\n]}}', f'{{"x": 1, "api_keys": [{ENTRY}, \n  "{OLD}"\n]}}'),
        (f'api_keys:\r\n  - "{OLD}"\r\nx: 1\r\n', f'api_keys:\r\n  - "{OLD}"\r\n  - {ENTRY}\r\nx: 1\r\n'),
    ],
)  # fmt: skip
def test_a_key_finds_its_place_however_the_file_is_written(text: str, expected: str) -> None:
    assert with_key(text, ENTRY) == expected


@pytest.mark.parametrize(
    "text",
    [
        "x: 1\n",
        "api_keys: text\n",
        f'a: &k ["{OLD}"]\napi_keys: *k\n',
        f'api_keys:\n  - "{OLD[:20]}\\\n    {OLD[20:]}"\n',
        "api_keys: [\n",
    ],
)
def test_where_a_key_has_no_safe_place_nothing_is_changed(text: str) -> None:
    with pytest.raises(NoPlace):
        with_key(text, ENTRY)


def test_a_key_without_a_safe_place_is_shown_with_the_line_to_paste(policies: Any, folder: Folder) -> None:
    text = f'customer: acme\nadapters: [acme_v1]\napi_keys:\n  -\n    "{digest("key-acme")}"\n'
    folder.write("customers/acme.yaml", text)
    ran = policies("new-key", "acme", "--dir", folder.path)
    assert ran.status == 1
    assert f'- "{digest(ran.out.strip())}"' in ran.err
    assert file_of(folder, "acme") == text


@pytest.mark.parametrize("name", ["ci", "yes", "1", "a: b", '"', "ü", "2027-01-01", "#"])
def test_a_keys_name_comes_back_as_it_was_given(name: str) -> None:
    root = read_yaml(key_entry(digest("k"), name, None)).root
    assert root is not None
    assert root.plain() == {"sha256": digest("k"), "name": name}


def test_the_repositorys_own_policies_name_the_schema() -> None:
    folder = Path(__file__).parents[2] / "policies"
    files = sorted(folder.rglob("*.yaml"))
    assert len(files) > 2
    for path in files:
        (named,) = re.findall(r"\A# yaml-language-server: \$schema=(\S+)\n", path.read_text())
        assert (path.parent / named).resolve() == (folder / "schema.json").resolve()
