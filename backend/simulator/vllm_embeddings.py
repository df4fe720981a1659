"""`/v1/embeddings` as vLLM 0.32 serves it (``vllm/entrypoints/pooling/embed``): vectors that tell who made them."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec

from backend.simulator.ask import count_tokens

DIMENSIONS = 4


class Embed(msgspec.Struct):
    """A request."""

    input: Any
    """A text, a list of token numbers, or a list of either."""
    model: str | None = None
    encoding_format: str = "float"


def embeddings(asked: Embed, name: str, *, id: str, created: int) -> dict[str, Any]:
    """The answer of the model ``name``."""
    given = asked.input
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    return {
        "id": id,
        "object": "list",
        "created": created,
        "model": name,
        "data": [
            {"index": index, "object": "embedding", "embedding": _written(vector(name, item), asked.encoding_format)}
            for index, item in enumerate(inputs)
        ],
        "usage": {
            "prompt_tokens": count_tokens(given),
            "total_tokens": count_tokens(given),
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        },
    }


def vector(name: str, item: Any) -> list[float]:
    """What ``name`` makes of one input: the same each time, and another of another model or input."""
    seed = sum((place + 1) * byte for place, byte in enumerate(f"{name}|{item}".encode()))
    return [((seed * (dimension + 3)) % 997) / 1024 for dimension in range(DIMENSIONS)]


def _written(values: list[float], encoding: str) -> list[float] | str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode() if encoding == "base64" else values
