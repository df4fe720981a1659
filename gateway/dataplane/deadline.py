"""How long a client is ready to wait for its first content, where it says so by itself."""

from __future__ import annotations

from typing import Final

from gateway.errors import RequestError

TIMEOUT: Final = b"x-request-timeout-ms"
"""Milliseconds from when the request was read. Counts where the policy's deadline is longer."""

RETRIES: Final = b"x-stainless-retry-count"
"""How often the OpenAI SDK has asked for the same already. Its read time-out, which it sends too, is no deadline."""


def deadline_of(value: bytes) -> float:
    """The time-out in seconds. Raises RequestError with status 400 for what is no whole number above 0."""
    text = value.strip()
    if not text.isdigit() or len(text) > 12 or int(text) == 0:
        raise RequestError(
            400,
            f"The header {TIMEOUT.decode()} holds whole milliseconds above 0, such as 2500.",
            param=TIMEOUT.decode(),
            code="invalid_timeout",
        )
    return int(text) / 1000
