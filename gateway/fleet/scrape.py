"""Reads one box's metrics each second, for as long as it is let: the thin shell round
:mod:`gateway.fleet.engine_metrics`.

That metrics are away says nothing about whether a box serves, so nothing here moves a breaker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.errors import InternalFault, ProtocolError, UpstreamError, UpstreamStatus
from gateway.fleet.engine_metrics import MAX_PAGE_BYTES, PATH, SHORT_PATH, EngineReading, parse
from gateway.fleet.request_head import request_head
from gateway.upstream.pool import Pool

INTERVAL_S = 1.0
"""From one reading to the next. Rendering the short page costs a box 1 to 3 ms of its API process."""

LONGEST_INTERVAL_S = 5.0
"""While it keeps failing; the interval doubles up to that."""

JITTER = 0.1
"""Share of the interval by which readings are spread to both sides, so that many gateways do not ask in step."""

TIMEOUT_S = 1.0
"""For one page."""

log = logging.getLogger(__name__)


def wait_s(failures: int, jitter: float) -> float:
    """Seconds until the next reading after ``failures`` in a row; ``jitter`` from 0 to 1."""
    interval_s = min(LONGEST_INTERVAL_S, INTERVAL_S * 2.0 ** min(failures, 10))
    return interval_s * (1 + JITTER * (2 * jitter - 1))


class Scrape:
    """Reads the metrics of the box behind ``pool`` for as long as :meth:`run` runs.

    ``on_reading`` gets each reading, ``on_failure`` what went wrong with each that failed. ``random`` gives numbers
    from 0 to 1, for the jitter. ``api_key`` is the box's own; vLLM leaves its metrics open, what stands before it may
    not.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        on_reading: Callable[[EngineReading], None],
        on_failure: Callable[[UpstreamError], None],
        random: Callable[[], float],
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._pool = pool
        self._on_reading = on_reading
        self._on_failure = on_failure
        self._random = random
        self._timeout_s = timeout_s
        self._heads = {
            path: request_head("GET", pool.origin, path, api_key=api_key, header=b"accept: text/plain")
            for path in (PATH, SHORT_PATH)
        }
        self._path = SHORT_PATH
        self.failures = 0
        """How many readings in a row have failed."""

    async def run(self) -> None:
        """Read whenever it is time, until cancelled."""
        # The first at a time of its own, so that all boxes of a fleet are not asked at the same moment ever after.
        await asyncio.sleep(JITTER * INTERVAL_S * self._random())
        while True:
            await self.once()
            await asyncio.sleep(wait_s(self.failures, self._random()))

    async def once(self) -> None:
        """Read now and tell how it went. Raises nothing but a cancellation."""
        try:
            reading = await self._read()
            self.failures = 0
            self._on_reading(reading)
        except UpstreamError as error:
            self._failed(error)
        except Exception as error:
            # A defect of ours: without metrics a gateway still serves, without this task it would never have any again.
            log.exception("a reading of %s failed within the gateway", self._pool.origin)
            self._failed(InternalFault(f"{type(error).__name__} while reading metrics"))

    async def _read(self) -> EngineReading:
        loop = asyncio.get_running_loop()
        at_s = loop.time()
        until = at_s + self._timeout_s
        if self._path == SHORT_PATH:
            try:
                return parse(await self._page(SHORT_PATH, until), at_s)
            except (UpstreamStatus, ProtocolError):
                # Whoever answers may not know the short page: another version, a proxy, a simulator.
                pass
        reading = parse(await self._page(PATH, until), at_s)
        self._path = PATH
        return reading

    async def _page(self, path: str, until: float) -> bytes:
        exchange = await self._pool.exchange(self._heads[path], b"", until)
        try:
            exchange.until = until
            page = await exchange.read_all(MAX_PAGE_BYTES)
            if exchange.status != 200:
                raise UpstreamStatus(exchange.status)
            return page
        finally:
            exchange.close()

    def _failed(self, error: UpstreamError) -> None:
        self.failures += 1
        # What comes back may be another server.
        self._path = SHORT_PATH
        try:
            self._on_failure(error)
        except Exception:
            log.exception("what hears of failed readings failed itself")
