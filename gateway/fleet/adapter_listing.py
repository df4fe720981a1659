"""Which adapters a box says it has: asked for only where one was missing, to learn that it is there again.

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


class _Models(msgspec.Struct):
    data: list[_Model]


_decode = msgspec.json.Decoder(_Models).decode


async def listed_adapters(pool: Pool, spec: BoxSpec, until: float) -> frozenset[str]:
    """The names that the box lists, its base among them; ``until``: loop time by which they have to be here.

    :raises UpstreamError: it does not say.
    """
    exchange = await pool.exchange(request_head("GET", pool.origin, PATH, api_key=spec.api_key), b"", until)
    try:
        exchange.until = until
        body = await exchange.read_all(LIMIT_BYTES)
    finally:
        exchange.close()
    if exchange.status != 200:
        raise UpstreamStatus(exchange.status, body)
    try:
        return frozenset(model.id for model in _decode(body).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{PATH} is no list of models: {error}") from error
