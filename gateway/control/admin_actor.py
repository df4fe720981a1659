"""Who uses the admin API: the gate knows the token, and the client says for whom it asks."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from fastapi import Request
from starlette.datastructures import Headers

from gateway.observe.actor import UNKNOWN, USER_HEADER, Actor

LONGEST = 100
"""Characters."""

_STATE = "failsoft_actor"


def read_actor(scope: dict[str, Any], token: str) -> Actor:
    """Of a request whose token has this name. The routes find it by :func:`actor_of`."""
    said = Headers(scope=scope).get(USER_HEADER, "")[: 10 * LONGEST]
    actor = Actor(token, one_line(unquote(said))[:LONGEST])
    scope.setdefault("state", {})[_STATE] = actor
    return actor


def actor_of(request: Request) -> Actor:
    """Who asks."""
    found = getattr(request.state, _STATE, UNKNOWN)
    return found if isinstance(found, Actor) else UNKNOWN


def one_line(text: str) -> str:
    """What a person wrote goes into logs and onto screens, and is to look there as one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
