"""The shapes of the control plane's answers: OpenAI's error envelope, and documents that hold now."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

_TYPES = {401: "authentication_error", 403: "permission_error"}


def envelope(
    status: int, message: str, *, param: str | None = None, code: str | None = None, headers: object = None
) -> JSONResponse:
    """An answer that says what went wrong. ``headers``: a mapping, if any."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": param, "code": code}},
        status,
        headers=dict(headers) if isinstance(headers, dict) else None,
    )


def fresh(document: dict[str, Any]) -> JSONResponse:
    """An answer that holds now, and that nobody in between is to keep."""
    return JSONResponse(document, headers={"cache-control": "no-store"})
