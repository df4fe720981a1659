"""The JSON schema of the YAML files, for editors. ``policies/schema.json`` is what this makes."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from gateway.policy.models import CustomerFile, DefaultsFile, FleetFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policies_schema() -> dict[str, Any]:
    """One schema for all three kinds of file, told apart by the key that each kind alone has."""
    _, schema = models_json_schema(
        [(model, "validation") for model in (FleetFile, DefaultsFile, CustomerFile)], ref_template="#/$defs/{model}"
    )
    definitions = _without_nulls(schema["$defs"])
    return {
        "$schema": DIALECT,
        "title": "failsoft policies",
        "if": {"required": ["fleets"]},
        "then": {"$ref": "#/$defs/FleetFile"},
        "else": {
            "if": {"required": ["defaults"]},
            "then": {"$ref": "#/$defs/DefaultsFile"},
            "else": {"$ref": "#/$defs/CustomerFile"},
        },
        "$defs": definitions,
    }


def schema_text() -> str:
    """The schema as it stands in ``policies/schema.json``."""
    return json.dumps(policies_schema(), indent=2, ensure_ascii=False) + "\n"


def _without_nulls(value: Any) -> Any:
    """A key may be left out, but not be there without a value: only the models' Python side knows None."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    options = value.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        options = [option for option in options if option != {"type": "null"}]
        rest = {key: item for key, item in value.items() if key not in ("anyOf", "default")}
        merged = rest | options[0] if len(options) == 1 else rest | {"anyOf": options}
        return _without_nulls(merged | {key: rest[key] for key in ("description",) if key in rest})
    return {key: _without_nulls(item) for key, item in value.items()}
