"""Which of several gateways acts on the boxes' adapters: one at a time, by a key in Redis that runs out.

``{failsoft}:sync``
    the id of the gateway that acts; gone some seconds after its last sign of life

What is done is harmless if two do it (a second load of a name is refused by the box), but for unloading: that takes a
lease which is known to hold.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import cast

from gateway.errors import StoreError
from gateway.policy.redis_link import PREFIX, RedisLink

KEY = PREFIX + "sync"
TTL_S = 15.0
EVERY_S = 4.0


class Lease:
    """``mine``: this gateway acts, as far as it has heard. ``sure``: and nobody else can, for now."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._link: RedisLink | None = None
        self._me = uuid.uuid4().hex
        self._on_change = on_change
        self._until = 0.0
        self.mine = False

    @property
    def sure(self) -> bool:
        """Whether it holds for certain: what the store was told has not run out."""
        return self.mine and asyncio.get_running_loop().time() < self._until

    async def keep(self, url: str) -> None:
        """Take it and hold it, until cancelled. ``url``: the store's."""
        self._link = RedisLink(url)
        try:
            while True:
                asked = asyncio.get_running_loop().time()
                try:
                    mine = await self._renew(self._link)
                except StoreError:
                    # Whoever acted goes on: nobody else can take it, and boxes may need their adapters.
                    mine = self.mine
                else:
                    self._until = asked + TTL_S if mine else 0.0
                if mine != self.mine:
                    self.mine = mine
                    self._on_change()
                await asyncio.sleep(EVERY_S)
        finally:
            await self._link.close()

    async def give_up(self, url: str) -> None:
        """Let another gateway take it at once. Raises StoreUnreachable."""
        if not self.mine:
            return
        self.mine = False
        link = RedisLink(url)
        try:
            async with link.mapped():
                if cast("bytes | None", await link.redis.get(KEY)) == self._me.encode():
                    await link.redis.delete(KEY)
        finally:
            await link.close()

    async def _renew(self, link: RedisLink) -> bool:
        ttl_ms = int(TTL_S * 1000)
        async with link.mapped():
            if await link.redis.set(KEY, self._me, nx=True, px=ttl_ms):
                return True
            if cast("bytes | None", await link.redis.get(KEY)) != self._me.encode():
                return False
            return bool(await link.redis.pexpire(KEY, ttl_ms))
