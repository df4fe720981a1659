"""OpenAI's error envelope, as the control plane answers with it."""

from __future__ import annotations

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
