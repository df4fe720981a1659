"""A request's body with another model in it, and not a byte else changed: for aliases, which no box knows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_KEY = b'"model"'
_MODEL = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')
_BEGINNING = 64
"""Bytes that are looked at first: to search a long body from its front takes as long as to read it."""

MOST_PLACES = 8
"""Looked at before the body is written anew instead."""


class _Model(msgspec.Struct):
    model: str


_decode = msgspec.json.Decoder(_Model).decode


def with_model(body: bytes, model: str) -> bytes:
    """``body``, a JSON object whose ``model`` is a string, with ``model`` instead of that.

    Written in place, as to write it anew would change numbers and texts that are none of our business, and costs more.
    Whether it was the right place is found by reading it: a key of that name may stand deeper, and what looks like
    one in a text. Raises msgspec.MsgspecError or UnicodeDecodeError where ``body`` is not JSON.
    """
    name = msgspec.json.encode(model)
    for at in _places(body):
        if (found := _MODEL.match(body, at)) is not None:
            begin, end = found.span(1)
            renamed = b"%b%b%b" % (body[:begin], name, body[end:])
            if _decode(renamed).model == model:
                return renamed
    # The key is written with escapes, or as often as nobody does it.
    return msgspec.json.encode(msgspec.json.decode(body) | {"model": model})


def _places(body: bytes) -> Iterator[int]:
    """Where the key may be: at the very beginning, as people write it, or behind the messages, as the SDKs do."""
    if (at := body.find(_KEY, 0, _BEGINNING)) >= 0:
        yield at
    at = len(body)
    for _ in range(MOST_PLACES):
        at = body.rfind(_KEY, 0, at)
        if at < 0:
            return
        yield at
