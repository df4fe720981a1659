"""Proofs in Redis, next to the policies, and whose turn a drill is.

``{failsoft}:proofs``
    hash: by key of the way to fall back, the last :class:`~gateway.drills.proof.Proof` as JSON
``{failsoft}:proofs:changes``
    channel: each new proof, as JSON
``{failsoft}:drill:KEY``
    which gateway tries it now; gone by itself after a while
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, cast

import msgspec

from gateway.drills.proof import Proof
from gateway.policy.redis_link import ANSWER_TIMEOUT_S, CONTENT_TIMEOUT_S, PREFIX, RedisLink

log = logging.getLogger(__name__)

PROOFS_KEY = PREFIX + "proofs"
CHANGES = PREFIX + "proofs:changes"

POLL_S = 60.0
"""How often all are read, should a message be lost."""

WAIT_S = 5.0
"""How long a message is waited for at a time, so that a store that is gone is missed."""

KEPT_MS = 90 * 86_400_000
"""A proof of what no policy has had for so long is dropped."""

CLAIM_MS = 60_000
"""Longer than a drill takes."""

Look = tuple[int, Mapping[str, Proof], bool]
"""The server's clock in Unix milliseconds, proofs by key, and whether these are all."""

_decode = msgspec.json.Decoder(Proof).decode


def claim_key(key: str) -> str:
    """Where it is said who tries it."""
    return f"{PREFIX}drill:{key}"


class DrillStore:
    """Every method raises only :class:`~gateway.errors.StoreError`. ``url``: as :class:`RedisLink` takes it."""

    def __init__(self, url: str) -> None:
        self._link = RedisLink(url)
        self._redis = self._link.redis

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()

    async def read(self) -> Look:
        """All proofs. Raises StoreUnreachable."""
        async with self._link.mapped(CONTENT_TIMEOUT_S):
            raw = cast("Mapping[bytes, bytes]", await self._redis.hgetall(PROOFS_KEY))
        server_ms = await self._time()
        proofs = {proof.key: proof for text in raw.values() if (proof := _proof(text)) is not None}
        if old := [key for key, proof in proofs.items() if proof.at_ms < server_ms - KEPT_MS]:
            async with self._link.mapped():
                await self._redis.hdel(PROOFS_KEY, *old)
        return server_ms, {key: proof for key, proof in proofs.items() if key not in old}, True

    async def newest(self, key: str) -> Proof | None:
        """What all gateways know of one. Raises StoreUnreachable."""
        async with self._link.mapped():
            raw = cast("bytes | None", await self._redis.hget(PROOFS_KEY, key))
        return None if raw is None else _proof(raw)

    async def write(self, proofs: Iterable[Proof]) -> None:
        """Keep ``proofs``, and tell all gateways. Raises StoreUnreachable."""
        texts = {proof.key: msgspec.json.encode(proof) for proof in proofs}
        async with self._link.mapped(CONTENT_TIMEOUT_S), self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(PROOFS_KEY, mapping=cast("Any", texts))
            for text in texts.values():
                pipe.publish(CHANGES, text)
            await pipe.execute()

    async def claim(self, key: str, gateway: str) -> bool:
        """Whether it is this ``gateway``'s turn to try it. Raises StoreUnreachable."""
        async with self._link.mapped():
            return bool(await self._redis.set(claim_key(key), gateway, nx=True, px=CLAIM_MS))

    async def release(self, key: str) -> None:
        """It was tried. Raises StoreUnreachable."""
        async with self._link.mapped():
            await self._redis.delete(claim_key(key))

    async def watch(self, poll_s: float = POLL_S) -> AsyncGenerator[Look, None]:
        """All proofs now and each ``poll_s``, and each new one as it is told. Ends by raising StoreError."""
        async with self._redis.pubsub() as changes:
            async with self._link.mapped():
                await changes.subscribe(CHANGES)
            loop = asyncio.get_running_loop()
            while True:
                yield await self.read()
                until = loop.time() + poll_s
                while (left_s := until - loop.time()) > 0:
                    wait_s = min(WAIT_S, left_s)
                    async with self._link.mapped(wait_s + ANSWER_TIMEOUT_S):
                        told = await changes.get_message(ignore_subscribe_messages=True, timeout=wait_s)
                    if told is not None and (proof := _proof(told["data"])) is not None:
                        yield await self._time(), {proof.key: proof}, False

    async def _time(self) -> int:
        async with self._link.mapped():
            seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


def _proof(text: bytes) -> Proof | None:
    """None where it is none: nobody decides by a proof, and the next one takes its place."""
    try:
        return _decode(text)
    except msgspec.DecodeError as error:
        log.warning("drills: %s holds what is no proof: %s", PROOFS_KEY, error)
        return None
