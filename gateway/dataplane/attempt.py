"""One attempt: sends a request to one target and holds the answer back until it is worth committing to.

Thin I/O: what to try and for how long is :mod:`gateway.dataplane.journey`'s; what counts as an answer is the guards'.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.clock import Clock, wall_s
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.dialect import checked, guard_of
from gateway.dataplane.guard import Guard
from gateway.dataplane.hired import Hired
from gateway.dataplane.marks import Mark
from gateway.dataplane.request import Request
from gateway.dataplane.said import Said
from gateway.dataplane.splice import Splice, begun_anew
from gateway.errors import FailsoftError, InternalFault, NotAdmitted, ProtocolError, UpstreamError, UpstreamTimeout
from gateway.fleet.box import Box
from gateway.fleet.hosted import Hosted
from gateway.fleet.permit import Held, Permit
from gateway.policy.compiled import ProviderStep
from gateway.upstream.exchange import Exchange
from gateway.upstream.pool import Pool
from gateway.upstream.provider_answer import AnswerShape
from gateway.upstream.provider_request import translate
from gateway.upstream.providers import Providers
from gateway.upstream.refusal import read_refusal

log = logging.getLogger(__name__)

ANSWER_LIMIT = 64 << 20
"""Bytes of a plain answer, which is read whole before it is committed."""

ERROR_LIMIT = 1 << 20
"""Bytes of an error's body."""


@dataclass(slots=True, eq=False)
class Answer:
    """A committed answer. Of a stream ``body`` is the beginning; the rest comes from ``exchange`` through ``guard``."""

    attempt: Attempt
    body: bytes
    mark: Mark | None
    exchange: Exchange | None = None
    guard: Guard | None = None
    permit: Held | None = None
    usage: Any = None
    """What a plain answer says that it took, as it says it."""
    said: Said | None = None
    """What a stream has told its client, where another box may have to go on from there."""
    hired: Hired | None = None
    """The place at a provider that it holds; to be given back when it has ended."""
    splice: Splice | None = None
    """Of one that goes on with another, or takes its place, which broke off at the boxes and providers ``broke_at``."""
    broke_at: frozenset[str] = frozenset()

    def drop(self, now: float) -> None:
        """Nobody wants it: its upstream is told by the end of the connection, and gives back what it held."""
        if self.exchange is not None:
            self.exchange.close()
        if self.permit is not None:
            self.permit.released()
        if self.hired is not None:
            self.hired.release(now)

    def abort(self, error: UpstreamError) -> None:
        """Have a stream break with ``error``; one that has come to its end already stays whole."""
        if self.exchange is not None:
            self.exchange.abort(error)


class Asker:
    """Asks boxes and providers. Time is the running loop's clock. ``hosted`` says which providers may be asked."""

    def __init__(self, providers: Providers, hosted: Hosted) -> None:
        self._providers = providers
        self.hosted = hosted

    async def ask(
        self, request: Request, attempt: Attempt, clock: Clock, on_overdue: Callable[[], float] | None = None
    ) -> Answer:
        """The answer to ``attempt``, once it is committed. Raises :class:`UpstreamError` while it still is not.

        ``on_overdue``: asked, once it has been silent for its time, until when it may go on.
        """
        try:
            step = attempt.step
            # What asks is made by a plain call: one more coroutine between here and the socket costs a microsecond.
            if isinstance(step, ProviderStep):
                return await self._asking_provider(request, attempt, step, clock)
            return await self._asking_box(request, attempt, clock, on_overdue)
        except FailsoftError:
            raise
        except Exception as defect:
            if attempt.permit is not None:
                attempt.permit.released()  # which nothing may have taken over yet
            log.exception("a defect in an attempt at %s", attempt.served_by)
            raise InternalFault(f"internal error ({type(defect).__name__})") from defect

    def _asking_box(
        self, request: Request, attempt: Attempt, clock: Clock, on_overdue: Callable[[], float] | None
    ) -> Coroutine[Any, Any, Answer]:
        box = attempt.box
        if not isinstance(box, Box):
            raise TypeError(f"{attempt.kind} is no attempt at an upstream")
        # What may fail for the request's own sake comes before the permit is taken.
        base_model = box.base_model
        if attempt.kind == "base":
            body = msgspec.json.encode(request.fields_with_usage | {"model": base_model})
        elif attempt.adapter is not None:
            body = request.body_for(attempt.adapter)
        else:
            raise TypeError("an attempt at an adapter without its name")
        head = box.head(request.path) + request_id(request, attempt)
        permit = attempt.permit or _admitted(box, request, attempt, clock())
        return asked(
            Question(box.pool, head, body, base_model, None, box.pending, on_overdue), request, attempt, permit, clock
        )

    def _asking_provider(
        self, request: Request, attempt: Attempt, step: ProviderStep, clock: Clock
    ) -> Coroutine[Any, Any, Answer]:
        call = self._providers.call(step, request_id=f"{request.id}-{attempt.number}")
        asked_for = request.as_chat
        if isinstance(asked_for, str):
            raise TypeError(f"a step that does not suit: {asked_for}")
        body = msgspec.json.encode(translate(step, *asked_for))
        model = step.upstream_model
        shape = AnswerShape(
            request.endpoint,
            include_usage=request.include_usage,
            request_id=request.id,
            created_s=int(wall_s()),
            asked_model=model,
        )
        health = self.hosted.of(step.provider)
        permit = health.admit(clock(), streamed=request.stream, by_worker=not step.direct, force=attempt.forced)
        if permit is None:
            raise NotAdmitted(f"{step.provider.name} takes nobody while one request tries it")
        return asked(Question(call.pool, call.head, body, model, shape, None), request, attempt, permit, clock)


@dataclass(slots=True, eq=False)
class Question:
    """What an upstream is asked. ``model``: what to call the one that answers, where the answer does not say;
    ``shape``: None where the answer is in our clients' shape already. ``guard``: a stream's checks, where they are not
    those of its endpoint. ``heard`` is told of each piece that comes before the commit.
    """

    pool: Pool
    head: bytes
    body: bytes
    model: str
    shape: AnswerShape | None
    pending: set[Exchange] | None
    on_overdue: Callable[[], float] | None = None
    guard: Guard | None = None
    heard: Callable[[Exchange], None] | None = None


async def asked(question: Question, request: Request, attempt: Attempt, permit: Held, clock: Clock) -> Answer:
    """Send it, and tell ``permit`` how that went. The answer to a stream holds on to it."""
    try:
        answer = await (_stream if request.stream else _plain)(question, request, attempt)
    except UpstreamError as error:
        permit.failed(error, clock())
        raise
    except BaseException:
        if attempt.outrun:
            permit.failed(UpstreamTimeout("silent for its budget, and another target has answered"), clock())
        permit.released()
        raise
    permit.succeeded(clock())
    answer.permit = permit
    if answer.exchange is None:
        permit.released()
    return answer


async def _stream(question: Question, request: Request, attempt: Attempt) -> Answer:
    shape, pending = question.shape, question.pending
    exchange = await _open(question, attempt.until)
    try:
        content_type = exchange.header(b"content-type") or b""
        if not content_type.lower().startswith(b"text/event-stream"):
            raise ProtocolError(f"a stream was asked for, {content_type.decode('latin-1')!r} came")
        said = splice = None
        guard = question.guard
        if guard is None:
            if request.told is not None:
                said, splice = begun_anew(request.told)
            elif request.restarts or (request.resumes and attempt.kind == "own"):
                said = Said(keeps_tokens=request.tells_tokens)
            guard = guard_of(request, shape, said, splice)
        while True:
            data = await exchange.read()
            first = guard.feed(data) if data else guard.eof()
            # Content that came together with what breaks the stream was shown to nobody yet.
            if guard.error is not None:
                raise guard.error
            if guard.committed:
                break
            if guard.complete:
                raise ProtocolError("a stream without content")
            if question.heard is not None:
                question.heard(exchange)
    except BaseException:
        exchange.close()
        raise
    exchange.on_overdue = None
    if pending is not None:
        # From its commit on a stream is bounded by its stall time-out.
        pending.discard(exchange)
    mark = _mark(request, attempt, (guard.model if shape is None else shape.model) or question.model)
    if mark is not None:
        first = mark.splice(first)
    return Answer(attempt, first, mark, exchange, guard, said=said, splice=splice)


async def _plain(question: Question, request: Request, attempt: Attempt) -> Answer:
    shape = question.shape
    exchange = await _open(question, attempt.until)
    try:
        answer = await exchange.read_all(ANSWER_LIMIT)
    finally:
        exchange.close()
    answer, served, usage = checked(request, shape, answer)
    mark = _mark(request, attempt, served or question.model)
    return Answer(attempt, answer if mark is None else mark.splice(answer), mark, usage=usage)


async def _open(question: Question, until: float) -> Exchange:
    exchange = await question.pool.exchange(
        question.head, question.body, until, pending=question.pending, on_overdue=question.on_overdue
    )
    if exchange.status == 200:
        return exchange
    try:
        raise await read_refusal(exchange, ERROR_LIMIT)
    finally:
        exchange.close()


def _admitted(box: Box, request: Request, attempt: Attempt, now: float) -> Permit:
    adapter = attempt.adapter
    permit = box.admit(adapter, now, streamed=request.stream, force=attempt.forced)
    if permit is None:
        error = NotAdmitted(f"{box.name} takes nobody while its breaker tries one request")
        error.reason = box.condition(adapter, now) or error.reason
        raise error
    return permit


def _mark(request: Request, attempt: Attempt, served_model: str) -> Mark | None:
    if attempt.reason is None:
        return None
    return Mark(attempt.reason, request.model, served_model, attempt.served_by)


def request_id(request: Request, attempt: Attempt) -> bytes:
    # Made here, never taken from the client: vLLM names its own request by it, and two of one name would clash.
    return b"x-request-id: %b-%d\r\n" % (request.id.encode("latin-1"), attempt.number)
