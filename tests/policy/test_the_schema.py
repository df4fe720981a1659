"""The schema that editors check and complete by."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.demo.cast import cast, write_policies
from gateway.policy.models import CustomerFile, FleetFile
from gateway.policy.schema import policies_schema, schema_text
from gateway.policy.validate import read_folder

ROOT = Path(__file__).parents[2]


def test_the_schema_in_the_repository_is_the_one_that_the_models_make() -> None:
    written = (ROOT / "policies" / "schema.json").read_text("utf-8")
    assert written == schema_text(), "run: failsoft policies schema --write policies/schema.json"


def shipped() -> list[Path]:
    """The files of the repository that are policies, by what is in them."""
    texts = {path: path.read_text("utf-8") for top in ("policies", "docs") for path in (ROOT / top).rglob("*.yaml")}
    return sorted(
        path for path, text in texts.items() if re.search(r"^(fleets|defaults|customer):", text, re.MULTILINE)
    )


def the_schema_of(path: Path) -> str:
    (named,) = re.findall(r"\A# yaml-language-server: \$schema=(\S+)\n", path.read_text("utf-8"))
    return (path.parent / named).read_text("utf-8")


def test_policies_are_shipped_as_examples_and_for_each_way_to_deploy() -> None:
    assert {str(path.parent.relative_to(ROOT)) for path in shipped() if path.name == "fleet.yaml"} == {
        "policies", "docs/deploy/cpu", "docs/deploy/gpu", "docs/deploy/kubernetes/policies"
    }  # fmt: skip


@pytest.mark.parametrize("path", shipped(), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_that_is_shipped_names_the_schema(path: Path) -> None:
    assert the_schema_of(path) == schema_text()


def test_each_file_of_the_demo_names_the_schema_which_lies_beside(tmp_path: Path) -> None:
    (tmp_path / "customers").mkdir()
    write_policies(tmp_path, cast(), {"box-a": "http://127.0.0.1:1"}, "http://127.0.0.1:2")
    files = list(tmp_path.rglob("*.yaml"))
    assert len(files) == 2 + len(cast())
    assert {the_schema_of(path) for path in files} == {schema_text()}
    assert read_folder(tmp_path).warnings == ()


def test_the_schema_knows_every_key_refuses_others_and_no_key_is_null() -> None:
    schema = policies_schema()
    assert set(schema["$defs"]["CustomerFile"]["properties"]) == set(CustomerFile.model_fields)
    assert set(schema["$defs"]["FleetFile"]["properties"]) == set(FleetFile.model_fields)
    assert schema["$defs"]["CustomerFile"]["additionalProperties"] is False
    assert schema["$defs"]["CustomerFile"]["required"] == ["customer", "api_keys", "adapters"]
    assert "null" not in json.dumps(schema)


def test_every_key_says_what_it_is_for() -> None:
    definitions = policies_schema()["$defs"]
    bare = [f"{name}.{key}" for name in ("CustomerFile", "Box", "Fleet", "Provider", "ProviderStep")
            for key, about in definitions[name]["properties"].items() if "description" not in about]  # fmt: skip
    assert bare == []
