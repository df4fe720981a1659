"""One drill: a small question by the very way that a customer's degraded request takes, and a look at the answer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dataplane.attempt import Answer, Asker
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.request import Request
from gateway.drills.target import Target
from gateway.errors import FailsoftError, ProtocolError, Reason, TooLarge, UpstreamError
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.policy.compiled import ProviderStep

LIMIT_S = 30.0
"""For the whole answer, which is some words."""

ANSWER_LIMIT = 1 << 20
"""Bytes of an answer that was asked to be short."""

MAX_TOKENS = 64
"""Enough that a model that thinks before it speaks gets to say something."""

QUESTION = "This is a drill: an automatic check that you can be reached. Answer with one word."

LONGEST_ERROR = 200
"""Characters of what went wrong that are kept."""

_CONTENT = ("content", "tool_calls", "reasoning_content", "reasoning", "refusal")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``error`` is empty where all went well. ``first_content_ms``: from the question to the first word."""

    error: str
    model: str = ""
    first_content_ms: int | None = None


class Prover:
    """Asks as the data plane asks, through the same breakers: a failure counts as any other does."""

    def __init__(self, asker: Asker, fleets: Fleets) -> None:
        self._asker = asker
        self._fleets = fleets

    async def prove(self, target: Target) -> Outcome:
        """Try ``target`` once."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if isinstance(target.step, ProviderStep):
            # A fallback that a customer's request would pass over is none.
            why_not = self._asker.hosted.condition(target.step.provider, began)
            if why_not is not None:
                return Outcome(f"not asked: {why_not}")
        try:
            attempt = self._attempt(target, began)
            answer = await self._asker.ask(_request(target), attempt, loop.time)
            first_content_ms = round((loop.time() - began) * 1000)
            model = "" if answer.mark is None else answer.mark.served_model
            await _read(answer)
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
