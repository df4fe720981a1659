"""`/v1/models`: the caller's own adapters and nobody else's."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.policy.compiled import CompiledPolicy, CustomerPolicy


def adapters_list(policy: CompiledPolicy, customer: CustomerPolicy) -> bytes:
    """The body of `GET /v1/models`, in OpenAI's shape."""
    data = [_adapter(policy, customer, adapter) for adapter in sorted(customer.adapters)]
    return msgspec.json.encode({"object": "list", "data": data})


def adapter_object(policy: CompiledPolicy, customer: CustomerPolicy, adapter: str) -> bytes:
    """The body of `GET /v1/models/{adapter}`."""
    return msgspec.json.encode(_adapter(policy, customer, adapter))


def _adapter(policy: CompiledPolicy, customer: CustomerPolicy, adapter: str) -> dict[str, Any]:
    return {
        "id": adapter,
        "object": "model",
        "created": policy.created_s,
        "owned_by": customer.name,
        "parent": customer.fleet.base_model,
    }
