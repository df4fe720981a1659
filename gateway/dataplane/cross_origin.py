"""Leave for web pages of other origins to ask the gateway (CORS, as the Fetch standard has it): off unless it is given.

A page that asks holds its customer's key, and so does everybody who opens it. It is for pages inside of the house.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.dataplane.marks import Headers

ENVIRONMENT: Final = "FAILSOFT_CORS_ORIGINS"
"""The environment variable that names the origins, with blanks in between."""

PREFLIGHT_S: Final = 600
"""How long a browser may go by what it was told."""

_ORIGIN: Final = re.compile(r"https?://[^\s/?#,@]+")
_READABLE: Final = (
    "x-request-id, x-failsoft-served-by, x-failsoft-attempts, x-failsoft-policy, x-failsoft-degraded, "
    "x-failsoft-model, retry-after, x-should-retry, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)


def origins_of(env: Mapping[str, str]) -> tuple[str, ...]:
    """The origins that :data:`ENVIRONMENT` names."""
    return tuple(env.get(ENVIRONMENT, "").split())


def not_an_origin(text: str) -> bool:
    """Whether ``text`` is no origin as browsers send them: scheme, host and perhaps a port, nothing behind."""
    return _ORIGIN.fullmatch(text) is None


class CrossOrigin:
    """What pages of ``origins`` are told, and nobody else."""

    __slots__ = ("_allowed",)

    def __init__(self, origins: Iterable[str]) -> None:
        self._allowed = frozenset(origin.encode() for origin in origins)

    def headers(self, origin: bytes) -> Headers:
        """Of any answer to a page of ``origin``; empty where no page asks."""
        # Also to the others, so that no cache gives one page what was told another.
        vary = (b"vary", b"origin")
        if not origin or origin not in self._allowed:
            return [vary]
        return [vary, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _READABLE.encode())]

    def preflight(self, origin: bytes, methods: str, wanted: bytes) -> Headers:
        """Of the answer to what a browser asks before the request itself. ``wanted``: the headers that is to have."""
        if origin not in self._allowed:
            return []
        # Whatever it is to have: what is not known here is not looked at.
        return [
            (b"access-control-allow-methods", methods.encode()),
            *([(b"access-control-allow-headers", wanted)] if wanted else []),
            (b"access-control-max-age", b"%d" % PREFLIGHT_S),
        ]
