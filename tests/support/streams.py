"""Streams as bytes, for tests of what reads them."""

from __future__ import annotations

import json
from typing import Any

from tests.support.raw_client import Recording

DONE = b"data: [DONE]\n\n"


def event(*choices: dict[str, Any], **fields: Any) -> bytes:
    """One chunk of one chat answer."""
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "acme", **fields}
    return b"data: " + json.dumps({**chunk, "choices": list(choices)}).encode() + b"\n\n"


def choice(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """One choice of a chunk."""
    return {"index": index, "delta": delta, "finish_reason": finish}


def chat_events(numbers: int, *, name: str = "acme", finish: str = "stop", usage: bool = False) -> list[bytes]:
    """A whole numbered chat answer, event by event."""
    tokens = [
        f"{name}:",
        *(f" {number}" for number in range(numbers)),
        *([f" end/{numbers}"] if finish == "stop" else []),
    ]
    return [
        event(choice(role="assistant", content="")),
        *(event(choice(content=token)) for token in tokens),
        event(choice(finish=finish)),
        *([event(usage={"prompt_tokens": 1, "completion_tokens": len(tokens), "total_tokens": 9})] if usage else []),
        DONE,
    ]


def recorded(body: bytes, **fields: Any) -> Recording:
    """As if a client had received ``body``."""
    base: dict[str, Any] = {"status": 200, "headers": {"content-type": "text/event-stream"}, "end": "complete"}
    return Recording(**{**base, "pieces": [(0.0, body)], **fields})
