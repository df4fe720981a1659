"""The control plane over several workers: what it shows is all they have counted, what it changes holds in all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

COUNTED = frozenset({"/metrics", "/admin/status"})
"""Paths that show what workers count."""


def asking(
    app: Any, *, ask: Callable[[], Awaitable[None]], tell: Callable[[], None]
) -> Callable[[dict[str, Any], Any, Any], Awaitable[None]]:
    """``app``, before which the workers are asked where it shows what they have counted. What it changes, ``tell``
    tells them, and all have heard it before the answer says so."""

    async def asked(scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def send_once_it_holds(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                tell()
                await ask()
            await send(event)

        is_http = scope["type"] == "http"
        if is_http and scope["path"] in COUNTED:
            await ask()
        await app(scope, receive, send_once_it_holds if is_http and scope["method"] == "POST" else send)

    return asked
