"""Follows the scores that the gateways of a store share, and shows them as a metric."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gateway.errors import StoreCorrupt, StoreUnreachable
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.reconnect import patiently
from gateway.scores.score import Score, ScoreBook
from gateway.scores.score_store import ScoreStore
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

POLL_S: Final = 10.0
"""Scores change when an eval was run, some times a day; whoever publishes them sees them at once at that gateway."""


class ScoreKeeper:
    """``customers``: of the policy in force; of others nothing is shown."""

    def __init__(self, metrics: GatewayMetrics, customers: Callable[[], Iterable[str]]) -> None:
        self.book = ScoreBook()
        self._customers = customers
        self._store: ScoreStore | None = None
        self._tasks = TaskSet()
        metrics.before_render(lambda: metrics.eval_score.replace(self._series()))

    def start(self, url: str) -> None:
        """Follow the scores in the store at ``url``."""
        self._store = ScoreStore(url)
        self._tasks.spawn(self._follow(self._store), name="scores")

    async def close(self) -> None:
        """Stop following."""
        await self._tasks.close()
        if self._store is not None:
            await self._store.close()

    async def publish(self, scores: Sequence[Score]) -> None:
        """Share ``scores`` with all gateways on the store. Raises StoreError."""
        if self._store is None:
            raise StoreUnreachable("this gateway has no store")
        await self._store.write(scores)
        self.book.add(scores)

    def _series(self) -> dict[tuple[str, ...], float]:
        known = set(self._customers())
        return {one.key: one.right for one in self.book.all() if one.customer in known}

    async def _follow(self, store: ScoreStore) -> None:
        while True:
            patient = patiently()
            await patient(self._look, store)
            await asyncio.sleep(POLL_S)

    async def _look(self, store: ScoreStore) -> None:
        try:
            self.book.replace(await store.read())
        except StoreCorrupt as error:
            # What cannot be read is shown to nobody, and is written over by the next publication.
            log.warning("scores: %s", error)
