"""The request's body: read whole, bounded, and refused before it is read where its length says enough."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from gateway.dataplane.call import Call, ClientLeft
from gateway.errors import RequestError

BODY_LIMIT = 32 << 20
"""Bytes. A prompt of a million tokens is some 4 MB; images in base64 are what takes more."""

LINGER_S = 2.0
LINGER_BYTES = 64 << 20


def check_length(headers: Iterable[tuple[bytes, bytes]], limit: int) -> None:
    """Raise :class:`RequestError` where the headers alone say that the body cannot be taken."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and (len(value) > 18 or int(value) > limit):
            raise _too_large(limit)
        if name == b"content-encoding" and value.lower() != b"identity":
            raise RequestError(
                415, f"Content-Encoding {value.decode('latin-1')!r} is not supported: send the body uncompressed."
            )


async def read_body(call: Call, receive: Any, limit: int) -> bytes:
    """The whole body of ``call``, which knows meanwhile how much of it has come.

    Raises :class:`RequestError` (413) as soon as it exceeds ``limit`` bytes, :class:`ClientLeft` when it never ends.
    """
    call.received = size = 0
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message["body"]
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            call.received = None
            call.has_body = True
            return b"".join([*pieces, piece]) if pieces else piece
        pieces.append(piece)
        call.received = size


async def discard_rest(receive: Any) -> None:
    """Read and drop what the client still sends, for a while.

    Closing a socket with unread data resets it, and the reset can overtake the answer that says why.
    """
    size = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while size < LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
                size += len(message["body"])
    except TimeoutError:
        return


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")
