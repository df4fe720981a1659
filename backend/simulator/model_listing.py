"""What `/v1/models` of a box lists: its base and its adapters, as vLLM 0.32 does."""

from __future__ import annotations

import random
from typing import Any

from backend.simulator.engine import Engine


def model_listing(engine: Engine, created: int, max_model_len: int, ids: random.Random) -> dict[str, Any]:
    """The list; ``ids`` names its permissions."""
    base = engine.base
    known: list[tuple[str, str, str | None, int | None]] = [(base, base, None, max_model_len)]
    known += [(name, path, base, None) for name, path in engine.adapters.items()]
    models = [
        {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": longest,
            "permission": [_permission(created, ids)],
        }
        for name, root, parent, longest in known
    ]
    return {"object": "list", "data": models}


def _permission(created: int, ids: random.Random) -> dict[str, Any]:
    return {
        "id": f"modelperm-{ids.getrandbits(64):016x}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
