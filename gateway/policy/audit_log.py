"""The audit log as a gateway keeps it: written in the background, and kept for later while the store is away."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable

import msgspec

from gateway.errors import StoreError, StoreUnreachable
from gateway.policy.audit_stream import AuditEntry, AuditStream, together
from gateway.policy.policy_alarms import SUBJECT, AlarmSink
from gateway.policy.reconnect import patiently
from gateway.policy.redis_link import RedisLink
from gateway.policy.refusal_counts import EACH_S, RefusalCounts
from gateway.tasks import TaskSet

log = logging.getLogger("failsoft.audit")

KEPT_WAITING = 1000
"""Entries that wait for a store that is away. More are dropped, and counted."""

REMEMBERED = 200
"""The latest of our own, to be shown while the store cannot be asked."""

BATCH = 100
RECONNECT_WAIT_MAX_S = 2.0
LAST_WORDS_S = 1.0
"""For what is left at the end."""

UNWRITTEN = "audit_unwritten"


class AuditLog:
    """``record`` acts, at any time. Each is also a line of the log, at once. ``clock``: monotonic seconds.

    ``redis_url`` is asked when it is needed and may raise RuntimeError, as the embedded store has none before it is up.
    ``waiting`` is told how many entries are not in the store yet, ``dropped`` called for each that never will be.
    """

    def __init__(
        self,
        redis_url: Callable[[], str],
        *,
        alarms: AlarmSink,
        waiting: Callable[[float], None],
        dropped: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.gateway = uuid.uuid4().hex[:8]
        self._redis_url = redis_url
        self._alarms = alarms
        self._tell_waiting = waiting
        self._tell_dropped = dropped
        self._clock = clock
        self._refusals = RefusalCounts()
        self._waiting: deque[AuditEntry] = deque()
        self._latest: deque[AuditEntry] = deque(maxlen=REMEMBERED)
        self._wanted = asyncio.Event()
        self._number = 0
        self._link: RedisLink | None = None
        self._tasks = TaskSet()

    def start(self) -> None:
        """Write what is recorded, from now on."""
        self._tasks.spawn(self._write_on(), name="audit log")
        self._tasks.spawn(self._count_on(), name="refusals in the audit log")

    async def close(self) -> None:
        """Write what is left, if the store takes it at once."""
        await self._tasks.close()
        for entry in self._refusals.rest():
            self._keep(entry)
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                while self._waiting:
                    await self._write_once()
        except (StoreError, TimeoutError):
            log.warning("%d entries were not written to the store: this log has them above", len(self._waiting))
        if self._link is not None:
            await self._link.close()

    def _stream(self) -> AuditStream:
        if self._link is None:
            try:
                self._link = RedisLink(self._redis_url())
            except RuntimeError as error:
                raise StoreUnreachable(f"the store is not up: {error}") from error
        return AuditStream(self._link)

    def record(self, entry: AuditEntry) -> None:
        """Something was changed."""
        self._keep(entry)

    def refused(self, entry: AuditEntry) -> None:
        """Somebody was not let in. The same again is written once a minute, with its number."""
        if (first := self._refusals.take(entry, self._clock())) is not None:
            self._keep(first)

    async def read(self, *, since_s: float, limit: int) -> tuple[list[AuditEntry], StoreError | None]:
        """The latest entries, oldest first; with an error, those of this gateway alone, as far as it remembers."""
        own = [*self._latest, *self._waiting]
        try:
            found = await self._stream().read(since_s=since_s, limit=limit)
        except StoreError as error:
            return together(own, since_s=since_s)[-limit:], error
        return together([*found, *self._waiting], since_s=since_s)[-limit:], None

    def _keep(self, entry: AuditEntry) -> None:
        self._number += 1
        entry = msgspec.structs.replace(entry, gateway=self.gateway, id=f"{self.gateway}-{self._number}")
        log.info("%s", entry.what, extra={"fields": {k: v for k, v in entry.as_json().items() if k != "what"}})
        self._latest.append(entry)
        if len(self._waiting) >= KEPT_WAITING:
            self._tell_dropped()
            message = f"{KEPT_WAITING} entries wait for the store; further ones are in the gateway's own log alone"
            self._alarms.on(UNWRITTEN, SUBJECT, message)
            return
        self._waiting.append(entry)
        self._tell_waiting(len(self._waiting))
        self._wanted.set()

    async def _count_on(self) -> None:
        while True:
            await asyncio.sleep(EACH_S / 4)
            for entry in self._refusals.due(self._clock()):
                self._keep(entry)

    async def _write_on(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            # As the policies are followed: for ever, with jitter.
            patient = patiently(RECONNECT_WAIT_MAX_S)
            while self._waiting:
                await patient(self._write_once)

    async def _write_once(self) -> None:
        batch = [self._waiting[at] for at in range(min(BATCH, len(self._waiting)))]
        try:
            await self._stream().append(batch)
        except StoreError as error:
            self._alarms.on(UNWRITTEN, SUBJECT, f"{len(self._waiting)} entries of the audit log wait: {error}")
            raise
        for _ in batch:
            self._waiting.popleft()
        self._tell_waiting(len(self._waiting))
        self._alarms.off(UNWRITTEN, SUBJECT)
