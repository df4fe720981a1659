"""How many gateways live on one policy store: each says now and then that it does and how it stands, in the background.

One that is no longer heard of shares nothing, and is remembered: it may live where the store does not hear it. One that
was killed is forgotten when another begins under its name, which is where it listened. While the store is away the last
number known stays: gateways that cannot see each other still ask the same boxes.
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
from gateway.policy.store import PolicyStore
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

BEAT_S = 1.5
"""From one sign of life to the next."""

JITTER = 0.2
"""Share of it by which they are spread to both sides."""


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
        self._began: float | None = None
        self.known: tuple[Replica, ...] = ()
        """All gateways on the store, those that are silent too, as last heard of."""

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
                await self._store.forget(self.id)
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
        standing, now = self._standing(), asyncio.get_running_loop().time()
        with writing(self._alarms):
            known = await self._store.beat(self.id, standing)
            if self._began is None:
                self._began = now
            replaced = [one.id for one in known if self._succeeds(one, standing.name, now - self._began)]
            if replaced:
                await self._store.forget(*replaced)
        self.known = tuple(one for one in known if one.id not in replaced)
        alive = [one.id for one in self.known if not one.is_silent]
        found = len(alive), alive.index(self.id)
        if found != self._known:
            self._known = found
            self._on_change(*found)

    def _succeeds(self, other: Replica, name: str, lived_s: float) -> bool:
        """Whether it listened where this gateway does, and was not heard of since this one began: it has ended."""
        return other.id != self.id and other.name == name and other.silent_s > lived_s
