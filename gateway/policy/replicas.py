"""How many gateways live on one policy store: each says now and then that it does and how it stands, in the background.

While the store is away the last number known stays: gateways that cannot see each other still ask the same boxes.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import suppress

from gateway.errors import StoreError
from gateway.policy.policy_alarms import AlarmSink, writing
from gateway.policy.reconnect import patiently
from gateway.policy.standing import Replica, Standing
from gateway.policy.store import REPLICA_TTL_S, PolicyStore
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

BEAT_S = 1.5
"""From one sign of life to the next."""

JITTER = 0.2
"""Share of it by which they are spread to both sides."""

TTL_S = REPLICA_TTL_S
"""Three signs of life that are missing: a gateway that was away for less comes back to the share it had."""


class Heartbeat:
    """``on_change`` hears how many gateways live and which of them this one is, from 0, whenever that has changed.

    ``standing``: what this gateway has to say of itself. ``uniform`` gives numbers from 0 to 1. ``alarms`` hear when
    the store takes no writes.
    """

    def __init__(
        self,
        store: PolicyStore,
        *,
        on_change: Callable[[int, int], None],
        uniform: Callable[[], float],
        alarms: AlarmSink,
        standing: Callable[[], Standing],
    ) -> None:
        self.id = uuid.uuid4().hex
        """Which gateway this is, as long as it lives."""
        self._store = store
        self._on_change = on_change
        self._uniform = uniform
        self._alarms = alarms
        self._standing = standing
        self._news = asyncio.Event()
        self._tasks = TaskSet()
        self._known: tuple[int, int] | None = None
        self.alive: tuple[Replica, ...] = ()
        """All gateways on the store, as last heard of."""

    def start(self) -> None:
        """Say that this gateway lives, from now on."""
        self._tasks.spawn(self._beat(), name="heartbeat")

    def tell(self) -> None:
        """What this gateway says of itself has changed: it is said at once."""
        self._news.set()

    async def close(self) -> None:
        """Say that it lives no more, if there is anybody to say it to: the others need not wait until it is missed."""
        await self._tasks.close()
        try:
            if self._known is not None:
                await self._store.leave(self.id)
        except StoreError as error:
            log.debug("the store does not hear that this gateway ends: %s", error)
        await self._store.close()

    async def _beat(self) -> None:
        while True:
            # As the policies are followed: for ever, with jitter.
            patient = patiently()
            await patient(self._once)
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S * (1 + JITTER * (2 * self._uniform() - 1))):
                    await self._news.wait()

    async def _once(self) -> None:
        self._news.clear()
        with writing(self._alarms):
            self.alive = alive = await self._store.beat(self.id, TTL_S, self._standing())
        found = len(alive), [replica.id for replica in alive].index(self.id)
        if found != self._known:
            self._known = found
            self._on_change(*found)
