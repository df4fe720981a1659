"""How many gateways live on one policy store: each says now and then that it does, in the background.

While the store is away the last number known stays: gateways that cannot see each other still ask the same boxes.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from gateway.errors import StoreError
from gateway.policy.policy_alarms import AlarmSink, writing
from gateway.policy.store import PolicyStore
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

BEAT_S = 1.5
"""From one sign of life to the next."""

JITTER = 0.2
"""Share of it by which they are spread to both sides."""

TTL_S = 5.0
"""Three signs of life that are missing: a gateway that was away for less comes back to the share it had."""

RECONNECT_WAIT_MAX_S = 1.0


class Heartbeat:
    """``on_change`` hears how many gateways live and which of them this one is, from 0, whenever that has changed.

    ``uniform`` gives numbers from 0 to 1. ``alarms`` hear when the store takes no writes.
    """

    def __init__(
        self,
        store: PolicyStore,
        *,
        on_change: Callable[[int, int], None],
        uniform: Callable[[], float],
        alarms: AlarmSink,
    ) -> None:
        self.id = uuid.uuid4().hex
        """Which gateway this is, as long as it lives."""
        self._store = store
        self._on_change = on_change
        self._uniform = uniform
        self._alarms = alarms
        self._tasks = TaskSet()
        self._known: tuple[int, int] | None = None

    def start(self) -> None:
        """Say that this gateway lives, from now on."""
        self._tasks.spawn(self._beat(), name="heartbeat")

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
            patient = AsyncRetrying(
                retry=retry_if_exception_type(StoreError),
                wait=wait_random_exponential(multiplier=0.05, max=RECONNECT_WAIT_MAX_S),
            )
            await patient(self._once)
            await asyncio.sleep(BEAT_S * (1 + JITTER * (2 * self._uniform() - 1)))

    async def _once(self) -> None:
        with writing(self._alarms):
            alive = await self._store.beat(self.id, TTL_S)
        found = len(alive), alive.index(self.id)
        if found != self._known:
            self._known = found
            self._on_change(*found)
