"""`/v1/models`: the caller's own adapters and aliases, and nobody else's."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.policy.compiled import CompiledPolicy, CustomerPolicy


def models_list(policy: CompiledPolicy, customer: CustomerPolicy) -> bytes:
    """The body of `GET /v1/models`, in OpenAI's shape."""
    names = sorted([*customer.adapters, *customer.aliases])
    return msgspec.json.encode({"object": "list", "data": [_model(policy, customer, name) for name in names]})


def model_object(policy: CompiledPolicy, customer: CustomerPolicy, model: str) -> bytes:
    """The body of `GET /v1/models/{model}`, of an adapter or an alias."""
    return msgspec.json.encode(_model(policy, customer, model))


def _model(policy: CompiledPolicy, customer: CustomerPolicy, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": policy.created_s,
        "owned_by": customer.name,
        "parent": customer.fleet.base_model,
    }
    alias = customer.aliases.get(name)
    if alias is not None:
        # As vLLM names what is behind a name; of several the one that most requests go to.
        found["root"] = alias.heaviest
    return found
