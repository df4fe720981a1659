"""One drill: a small question by the very way that a customer's degraded request takes, and a look at the answer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.clock import Clock
from gateway.dataplane.accounting import FULL, Accounting
from gateway.dataplane.attempt import Answer, Asker
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.hired import Hired
from gateway.dataplane.request import Request
from gateway.drills.target import Target
from gateway.errors import FailsoftError, ProtocolError, Reason, TooLarge, UpstreamError
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.policy.compiled import CustomerPolicy, ProviderStep

LIMIT_S = 30.0
"""For the whole answer, which is some words."""

ANSWER_LIMIT = 1 << 20
"""Bytes of an answer that was asked to be short."""

PLACE_S = 2.0
PLACE_EVERY_S = 0.25
"""A drill has the time to wait for a place at a provider that is full just now, or of which nothing was heard yet."""

CAP_AGAIN_S = 600.0
"""A spent cap holds until midnight, or until a policy changes it."""

FULL_AGAIN_S = 15.0

MAX_TOKENS = 64
"""Enough that a model that thinks before it speaks gets to say something."""

QUESTION = "This is a drill: an automatic check that you can be reached. Answer with one word."

LONGEST_ERROR = 200
"""Characters of what went wrong that are kept."""

_CONTENT = ("content", "tool_calls", "reasoning_content", "reasoning", "refusal")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``error`` is empty where all went well. ``first_content_ms``: from the question to the first word.

    ``held_back``: why nobody was asked, where our own limits did not allow it, which shows nothing either way; in
    ``again_s`` they may.
    """

    error: str
    model: str = ""
    first_content_ms: int | None = None
    held_back: str = ""
    again_s: float = CAP_AGAIN_S


class Prover:
    """Asks as the data plane asks, through the same breakers and accounts: a failure counts as any other does, and what
    an answer takes is a customer's."""

    def __init__(self, asker: Asker, fleets: Fleets, books: Accounting) -> None:
        self._asker = asker
        self._fleets = fleets
        self._books = books

    async def prove(self, target: Target, payer: CustomerPolicy | None = None) -> Outcome:
        """Try ``target`` once, in the name of ``payer``; None: of one of its customers that may pay for it."""
        timing = _Timing(asyncio.get_running_loop())
        payers = (payer,) if payer is not None else target.payers or (target.customer,)
        if not isinstance(target.step, ProviderStep):
            return await self._ask(target, payers[0], timing)
        step, now = target.step, timing.clock()
        # A fallback that a customer's request would pass over is none.
        if (why_not := self._asker.hosted.condition(step.provider, now)) is not None:
            return Outcome(f"not asked: {why_not}")
        withheld = ""
        for one in payers:
            if (why_withheld := self._books.why_not(one, step, now)) in (None, FULL):
                break
            withheld = withheld or why_withheld
        else:
            return Outcome("", held_back=withheld)
        hired = await self._place(one, _request(target), step, timing)
        if hired is None:
            return Outcome("", held_back=FULL, again_s=FULL_AGAIN_S)
        try:
            return await self._ask(target, one, timing)
        finally:
            hired.release(timing.clock())

    async def _place(
        self, payer: CustomerPolicy, request: Request, step: ProviderStep, timing: _Timing
    ) -> Hired | None:
        until = timing.clock() + PLACE_S
        while (hired := await self._books.at_provider(timing, payer, request, step)) is None:
            if timing.clock() >= until:
                return None
            await asyncio.sleep(PLACE_EVERY_S)
        return hired

    async def _ask(self, target: Target, payer: CustomerPolicy, timing: _Timing) -> Outcome:
        clock = timing.clock
        began = clock()
        request = _request(target)
        try:
            answer = await self._asker.ask(request, self._attempt(target, began), clock)
            first_content_ms = round((clock() - began) * 1000)
            model = "" if answer.mark is None else answer.mark.served_model
            try:
                await _read(answer)
            finally:
                self._books.drilled(payer, request, answer)
        except FailsoftError as error:
            return Outcome(_words(error))
        return Outcome("", model, first_content_ms)

    def _attempt(self, target: Target, now: float) -> Attempt:
        step = target.step
        if isinstance(step, ProviderStep):
            attempt = Attempt("provider", target.name, step=step)
        else:
            box = self._box(target, now)
            attempt = Attempt("base", f"base:{box.name}", box=box)
        attempt.number, attempt.until, attempt.reason = 1, now + LIMIT_S, Reason.DRILL
        return attempt

    def _box(self, target: Target, now: float) -> Box:
        for box in self._fleets.boxes(target.customer.fleet.name):
            if box.condition(None, now) is None:
                return box
        raise UpstreamError("no box may be asked")


@dataclass(frozen=True, slots=True)
class _Timing:
    """A :class:`~gateway.dataplane.accounting.Timing` of a drill."""

    loop: asyncio.AbstractEventLoop

    @property
    def clock(self) -> Clock:
        return self.loop.time


def _request(target: Target) -> Request:
    adapter = min(target.customer.adapters, default=target.customer.fleet.base_model)
    fields = {
        "model": adapter,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": MAX_TOKENS,
        # As most agents ask.
        "stream": True,
    }
    return Request(
        id=f"drill-{uuid.uuid4().hex[:12]}",
        endpoint="chat",
        body=msgspec.json.encode(fields),
        model=adapter,
        stream=True,
        choices=1,
        include_usage=False,
        adapter=adapter,
        max_tokens=MAX_TOKENS,
    )


async def _read(answer: Answer) -> None:
    """Read the answer to its end. Raises :class:`UpstreamError` where it is not whole, or says nothing."""
    exchange, guard, permit, clock = answer.exchange, answer.guard, answer.permit, asyncio.get_running_loop().time
    if exchange is None or guard is None:
        raise TypeError("a drill is streamed")
    try:
        body = answer.body
        exchange.until = answer.attempt.until
        while not guard.complete and guard.error is None:
            try:
                data = await exchange.read()
                body += guard.feed(data) if data else guard.eof()
            except UpstreamError as error:
                body += guard.lost(error)
            if len(body) > ANSWER_LIMIT:
                raise TooLarge(f"an answer of more than {ANSWER_LIMIT} bytes to a question that takes a word")
        if guard.error is not None:
            raise guard.error
        if not any(_says_something(event) for event in _events(body)):
            raise ProtocolError("an answer without content")
    except UpstreamError as error:
        if permit is not None:
            permit.failed(error, clock())
        raise
    finally:
        exchange.close()
        if permit is not None:
            permit.released()


def _events(body: bytes) -> Iterator[Any]:
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            yield msgspec.json.decode(line[6:])


def _says_something(event: Any) -> bool:
    """Whether an event that has passed the guard holds content."""
    return any((choice.get("delta") or {}).get(name) for choice in event.get("choices") or () for name in _CONTENT)


def _words(error: FailsoftError) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text[:LONGEST_ERROR] or type(error).__name__
