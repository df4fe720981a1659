"""The active probe of a box: one real token for the base model, as a client would ask for it.

``/health`` says 200 while the engine hangs, sleeps or drains, so only a token counts. When to probe is pure; the rest
is one task a box.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable

from gateway.clock import wall_s
from gateway.errors import (
    ConnectError,
    ConnectTimeout,
    PoolExhausted,
    ProtocolError,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.fleet.adapter_listing import listed_adapters
from gateway.fleet.blame import MAX_ERROR_CHARS, Blame, blame
from gateway.fleet.box import Box
from gateway.fleet.permit import Permit
from gateway.fleet.probe_answer import LIMIT_BYTES, ProbeAnswer
from gateway.fleet.probe_result import ProbeOutcome, ProbeResult
from gateway.observe.metrics import GatewayMetrics
from gateway.upstream.exchange import Exchange
from gateway.upstream.refusal import read_refusal

log = logging.getLogger(__name__)

INTERVAL_S = 2.0
"""Between two probes of one box, at least (design, "The life of a request")."""

JITTER = 0.1
"""Share of the interval by which probes are spread, so that many gateways do not ask in step."""

TIMEOUT_S = 2.0
"""For a probe's first content."""

DRAIN_S = 0.5
"""For the end of a probe's answer once its content has come."""

DOUBT_S = 1.0
"""A box at which something is in flight, and which has shown nothing for so long, is in doubt: it is probed earlier."""

UNANSWERED_PROBES = 2
"""Probes in a row without an answer, nor any other sign of life, after which a box counts as hung or gone."""

PATH = "/v1/chat/completions"


def next_probe_at(
    *,
    last_probe: float | None,
    last_life: float | None,
    opened_at: float | None,
    retry_at: float,
    jitter: float,
    in_flight: bool = False,
) -> float:
    """The time at which the next probe is due: times of one clock, in seconds; ``jitter`` from 0 to 1.

    A box that answers clients needs no probe; one that owes them an answer and has fallen silent is in doubt. One
    whose breaker has opened is probed as soon as the breaker would try it, and at each interval however long the
    breaker means to wait: a failed probe costs no client anything, and the first that succeeds brings the box back.
    """
    if last_probe is None:
        return 0.0
    earliest = last_probe + INTERVAL_S
    if opened_at is not None:
        return max(earliest, min(retry_at, opened_at + INTERVAL_S))
    due = earliest + INTERVAL_S * JITTER * jitter
    return due if last_life is None else max(due, last_life + (DOUBT_S if in_flight else INTERVAL_S))


def outcome_of(error: UpstreamError) -> ProbeOutcome:
    """What kind of failure ``error`` is, for metrics and people."""
    if isinstance(error, PoolExhausted) or blame(error) is Blame.LOAD:
        return "busy"
    if isinstance(error, UpstreamTimeout | ConnectTimeout):
        return "silent"
    if isinstance(error, UpstreamStatus):
        return "status"
    return "refused" if isinstance(error, ConnectError) else "garbage"


class Probe:
    """Probes one box for as long as :meth:`run` runs. ``random`` gives numbers from 0 to 1, for the jitter."""

    def __init__(
        self, box: Box, *, metrics: GatewayMetrics, random: Callable[[], float], timeout_s: float = TIMEOUT_S
    ) -> None:
        self._box = box
        self._metrics = metrics
        self._random = random
        self._timeout_s = timeout_s
        self._look_again = asyncio.Event()
        self._last_probe: float | None = None
        self._unanswered = 0
        self._looked_at = -math.inf
        fields = {
            "model": box.base_model,
            "messages": [{"role": "user", "content": "ping"}],
            "max_tokens": 1,
            "stream": True,
            "temperature": 0,
        }
        self._body = json.dumps(fields, separators=(",", ":")).encode()

    async def run(self) -> None:
        """Probe whenever it is due, until cancelled."""
        loop = asyncio.get_running_loop()
        self._box.watch = self._look_again
        jitter = self._random()
        while True:
            self._look_again.clear()
            await self.look_for_missing()
            breaker = self._box.breaker
            wait_s = (
                next_probe_at(
                    last_probe=self._last_probe,
                    last_life=self._box.last_life,
                    opened_at=breaker.opened_at,
                    retry_at=breaker.retry_at,
                    jitter=jitter,
                    in_flight=self._box.in_flight > 0,
                )
                - loop.time()
            )
            if wait_s <= 0:
                await self.once()
                jitter = self._random()
                continue
            try:
                async with asyncio.timeout(wait_s):
                    await self._look_again.wait()
            except TimeoutError:
                continue

    async def once(self) -> None:
        """Probe now, and tell the box's breaker how it went."""
        loop = asyncio.get_running_loop()
        box = self._box
        previous, began = self._last_probe, loop.time()
        self._last_probe = began
        # Beside the breaker's rule where it has to be: nobody waits for a probe.
        permit = box.admit(None, began, probe=True)
        if permit is None:
            return
        with permit:
            try:
                exchange = await self._ask(began + self._timeout_s)
            except UpstreamError as error:
                self._failed(permit, error, began if previous is None else previous, began, loop.time())
                return
            now = loop.time()
            permit.succeeded(now)
            self._unanswered = 0
            self._ended("ok", now - began)
            box.load.probed(now - began)
            await _finish(exchange, now + DRAIN_S)

    async def look_for_missing(self) -> None:
        """If it is time, ask which adapters the box lists, as one that it lacked may be there again.

        A box that is busy with others is never probed, and may be nobody's first choice for the one that it lacked.
        """
        box, now = self._box, asyncio.get_running_loop().time()
        if not box.pairs.overdue(now) or not box.breaker.closed or now < self._looked_at + INTERVAL_S:
            return
        self._looked_at = now
        try:
            box.listed(await listed_adapters(box.pool, box.spec, now + self._timeout_s))
        except UpstreamError as error:
            # It answers others: that it does not list its adapters as well moves no breaker.
            log.info("%s does not list its adapters: %s", box.name, error)

    async def _ask(self, until: float) -> Exchange:
        """The answer, once the box has shown content. Raises :class:`UpstreamError` where it does not."""
        box = self._box
        exchange = await box.pool.exchange(box.head(PATH), self._body, until)
        try:
            exchange.until = until
            if exchange.status != 200:
                raise await read_refusal(exchange, LIMIT_BYTES)
            content_type = exchange.header(b"content-type") or b""
            if not content_type.startswith(b"text/event-stream"):
                raise ProtocolError(f"a stream was asked for, {content_type.decode('latin-1')!r} came")
            answer = ProbeAnswer()
            while data := await exchange.read():
                if answer.feed(data):
                    return exchange
            raise ProtocolError("the probe's answer ended without content")
        except BaseException:
            exchange.close()
            raise

    def _failed(self, permit: Permit, error: UpstreamError, previous: float, began: float, now: float) -> None:
        box = self._box
        outcome = outcome_of(error)
        if outcome == "silent" and _lived_since(box, began):
            # It answered others meanwhile: it is slow to begin with new work, not hung.
            outcome = "busy"
        else:
            permit.failed(error, now)
        self._ended(outcome, now - began, str(error)[:MAX_ERROR_CHARS])
        # A refusal takes no time, so what counts is whether anything came since the probe before: a box that no longer
        # listens may be ending its running answers in good order.
        quiet = outcome == "silent" or (outcome == "refused" and not _lived_since(box, previous))
        self._unanswered = self._unanswered + 1 if quiet else 0
        # Each time, as what began to wait since the last time waits for nothing too.
        if self._unanswered == UNANSWERED_PROBES or (self._unanswered > UNANSWERED_PROBES and box.awaited):
            why = f"{self._unanswered} probes in a row without an answer"
            box.eject(now, why, silent=outcome == "silent")

    def _ended(self, outcome: ProbeOutcome, took_s: float, error: str = "") -> None:
        box = self._box
        box.last_probe = ProbeResult(wall_s(), outcome, took_s, error)
        self._metrics.probes.inc(box.name, outcome)
        if outcome == "ok":
            self._metrics.probe_seconds.observe(took_s, box.name)


def _lived_since(box: Box, when: float) -> bool:
    return box.last_life is not None and box.last_life >= when


async def _finish(exchange: Exchange, until: float) -> None:
    """Read what is left, so that the connection can be used again and the box sees no aborted request."""
    exchange.until = until
    try:
        await exchange.read_all(LIMIT_BYTES)
    except UpstreamError:
        # Its first token was what was asked for; how the rest ends is not a probe's business.
        return
    finally:
        exchange.close()
