"""Scores in Redis, next to the policies.

``{failsoft}:scores``
    hash: ``PATH:CUSTOMER`` → the score as JSON
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from gateway.errors import StoreCorrupt
from gateway.policy.redis_link import CONTENT_TIMEOUT_S, PREFIX, RedisLink
from gateway.scores.score import Score

SCORES_KEY = PREFIX + "scores"


class ScoreStore:
    """Every method raises only :class:`~gateway.errors.StoreError`. ``url``: as :class:`RedisLink` takes it."""

    def __init__(self, url: str) -> None:
        self._link = RedisLink(url)

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()

    async def read(self) -> list[Score]:
        """All there are. Raises StoreUnreachable, StoreCorrupt."""
        async with self._link.mapped(CONTENT_TIMEOUT_S):
            raw = cast("list[bytes]", await self._link.redis.hvals(SCORES_KEY))
        try:
            return [msgspec.json.decode(one, type=Score) for one in raw]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreCorrupt(f"{SCORES_KEY} holds what is no score: {error}") from None

    async def write(self, scores: Sequence[Score]) -> None:
        """Put these in the place of what there is for their customers and paths. Raises StoreUnreachable."""
        values: Any = {f"{one.path}:{one.customer}": msgspec.json.encode(one) for one in scores}
        async with self._link.mapped(CONTENT_TIMEOUT_S):
            await self._link.redis.hset(SCORES_KEY, mapping=values)
