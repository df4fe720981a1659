"""One chat request straight to a data plane in this process: no socket, no client."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.dataplane.endpoint import DataPlane


@dataclass(slots=True)
class Heard:
    """An answer, as far as anybody counts it. ``first_s``: when its first content came, or the error that was given
    instead, by the loop's clock; ``broken``: it ended with an error after content had come.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    first_s: float = math.nan
    broken: bool = False


async def ask_in_process(dataplane: DataPlane, key: str, fields: Mapping[str, Any]) -> Heard:
    """The answer to ``fields``, once it has ended."""
    loop = asyncio.get_running_loop()
    heard = Heard()
    body = json.dumps(fields).encode()
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    last = b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal last
        if message["type"] == "http.response.start":
            heard.status = message["status"]
            heard.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message.get("body"):
            # Nothing leaves before the first content (docs/architecture.md).
            if math.isnan(heard.first_s):
                heard.first_s = loop.time()
            last = message["body"]

    await dataplane(scope, receive, send)
    heard.broken = heard.status == 200 and b'{"error"' in last
    return heard
