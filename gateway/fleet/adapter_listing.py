"""Which adapters a box says it has: asked where one was missing, to learn that it is there again, and before and after
adapters are loaded.

A request by a customer would tell as well, but the box may be the second choice of all that ask for the adapter, and
then nobody ever asks it.
"""

from __future__ import annotations

import msgspec

from gateway.errors import ProtocolError, UpstreamStatus
from gateway.fleet.request_head import request_head
from gateway.policy.compiled import BoxSpec
from gateway.upstream.pool import Pool

PATH = "/v1/models"

LIMIT_BYTES = 8 << 20
"""vLLM takes some 300 bytes for an adapter."""


class _Model(msgspec.Struct):
    id: str
    root: str | None = None
    parent: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


_decode = msgspec.json.Decoder(_Models).decode


async def listed_adapters(pool: Pool, spec: BoxSpec, until: float) -> frozenset[str]:
    """The names that the box lists, its base among them; ``until``: loop time by which they have to be here.

    :raises UpstreamError: it does not say.
    """
    return frozenset(model.id for model in await _listed(pool, spec, until))


async def adapter_roots(pool: Pool, spec: BoxSpec, until: float) -> dict[str, str | None]:
    """By name, where each adapter that the box lists was loaded from, as far as it says; without the base.

    :raises UpstreamError: it does not say what it has.
    """
    return {model.id: model.root for model in await _listed(pool, spec, until) if model.parent is not None}


async def _listed(pool: Pool, spec: BoxSpec, until: float) -> list[_Model]:
    exchange = await pool.exchange(request_head("GET", pool.origin, PATH, api_key=spec.api_key), b"", until)
    try:
        exchange.until = until
        body = await exchange.read_all(LIMIT_BYTES)
    finally:
        exchange.close()
    if exchange.status != 200:
        raise UpstreamStatus(exchange.status, body)
    try:
        return _decode(body).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{PATH} is no list of models: {error}") from error
