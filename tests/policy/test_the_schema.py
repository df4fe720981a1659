"""The schema that editors check and complete by."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.policy.models import CustomerFile, FleetFile
from gateway.policy.schema import policies_schema, schema_text


def test_the_schema_in_the_repository_is_the_one_that_the_models_make() -> None:
    written = (Path(__file__).parents[2] / "policies" / "schema.json").read_text("utf-8")
    assert written == schema_text(), "run: failsoft policies schema --write policies/schema.json"


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
