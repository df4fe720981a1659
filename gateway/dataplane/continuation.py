"""What becomes of a stream that broke behind its commit: it goes on at a box, is asked for anew, or is given up.

Thin I/O: which of them is :func:`.resumption.way_on`'s to say, what is asked for anew is the request's own journey, and
how it is made to fit is :mod:`.splice`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from gateway.clock import wall_s
from gateway.dataplane.accounting import Accounting
from gateway.dataplane.answers import STATIC_MODEL, static_body
from gateway.dataplane.attempt import Answer
from gateway.dataplane.attempts import Attempts
from gateway.dataplane.call import Call
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.dialect import guard_of
from gateway.dataplane.journey import Journey
from gateway.dataplane.marks import Mark
from gateway.dataplane.racing import ClientsMistake
from gateway.dataplane.record import Record
from gateway.dataplane.request import Request
from gateway.dataplane.resuming import Resumer
from gateway.dataplane.resumption import Refused, way_on
from gateway.dataplane.said import Said
from gateway.dataplane.splice import begun_anew
from gateway.dataplane.stream_guard import StreamGuard
from gateway.errors import Reason, ShuttingDown, UpstreamError
from gateway.fleet.box import Box
from gateway.policy.compiled import CustomerPolicy, ProviderStep, StaticStep

MAX_BREAKS: Final = 2
"""Of one answer. One that breaks at every box may be what breaks them (design: a request meets at most two)."""


class Continuation:
    """Of one request's answer. ``answer``: who gives it now; ``why``: it could not go on elsewhere, where it was to."""

    __slots__ = ("_attempts", "_books", "_boxes", "_call", "_customer", "_journey", "_record", "_request", "_resumer",
                 "answer", "why")  # fmt: skip

    def __init__(
        self,
        call: Call,
        customer: CustomerPolicy,
        request: Request,
        answer: Answer,
        journey: Journey,
        boxes: Sequence[Box],
        *,
        resumer: Resumer,
        attempts: Attempts,
        record: Record,
        books: Accounting,
    ) -> None:
        self.answer = answer
        self.why = ""
        self._call = call
        self._customer = customer
        self._request = request
        self._journey = journey
        self._boxes = boxes
        self._resumer = resumer
        self._attempts = attempts
        self._record = record
        self._books = books

    async def go_on(self, broken: Answer, error: UpstreamError) -> Answer | None:
        """What follows upon ``broken``, a stream that is kept in mind and broke with ``error``; None: nothing does."""
        call = self._call
        call.stream = None
        now = call.clock()
        if broken.permit is not None:
            broken.permit.failed(error, now)
        broken.drop(now)
        call.seeks_rest = True
        try:
            rest = _ENDING if call.cut_off else await self._rest(broken, error)
        except asyncio.CancelledError:
            if not isinstance(call.ended_by, ShuttingDown):
                raise
            # The time for it is over, and its client is to hear how it ends.
            call.task.uncancel()
            call.ended_by = None
            rest = _ENDING
        finally:
            call.seeks_rest = False
            self._request.told = None
        if isinstance(rest, str):
            self.why = rest
            return None
        rest.broke_at = broken.broke_at | {broken.attempt.served_by.removeprefix("box:")}
        call.stream = self.answer = rest
        return rest

    async def _rest(self, broken: Answer, error: UpstreamError) -> Answer | str:
        said, customer, request = broken.said, self._customer, self._request
        if said is None or not isinstance(broken.guard, StreamGuard):
            raise TypeError("nobody has kept what it said")
        if broken.guard.finished:
            return "it had come to its end"
        if len(broken.broke_at) >= MAX_BREAKS:
            return f"it broke {len(broken.broke_at) + 1} times"
        spoken = said.spoken()
        found = way_on(customer.on_broken_stream, request.endpoint, request.fields_with_usage, request.choices, spoken)
        if isinstance(found, Refused):
            return found.why
        if request.restarts:
            return await self._anew(broken, said, error)
        rest = await self._resumer.go_on(customer, request, broken, said, spoken, found, self._call.clock)
        if isinstance(rest, Answer):
            self._record.resumed(customer, broken, rest, error)
        return rest

    async def _anew(self, broken: Answer, said: Said, error: UpstreamError) -> Answer | str:
        """The whole answer, of what comes next in the request's plan, within the deadline that it has."""
        customer, request, journey = self._customer, self._request, self._journey
        tried = len(journey.tried)
        journey.failed(broken.attempt, error)
        request.told = said
        try:
            # What was begun as another model's answer, in headers and first event, is not to be the own adapter's.
            found = await self._attempts.first(
                self._call, customer, request, journey, self._boxes, own=broken.mark is None
            )
        except ClientsMistake as mistake:
            return f"a box refuses the request: {mistake.error.for_watchers}"
        finally:
            self._books.withheld(customer, journey.tried[tried:])
        if found is None:
            return "; ".join(["nothing else may be asked", *journey.tried[tried:]])
        if isinstance(broken.attempt.step, ProviderStep):
            # What has taken its place is counted by itself, and this one costs what it costs.
            self._books.answered(customer, request, broken)
        rest = self._fixed(found, said) if isinstance(found, Attempt) else found
        self._record.restarted(customer, broken, rest, error)
        return rest

    def _fixed(self, attempt: Attempt, told: Said) -> Answer:
        request, step = self._request, attempt.step
        if not isinstance(step, StaticStep):
            raise TypeError(f"{attempt.kind} has no fixed text")
        said, splice = begun_anew(told)
        guard = guard_of(request, None, None, splice)
        attempt.reason = Reason.STREAM_BROKEN
        mark = Mark(attempt.reason, request.model, STATIC_MODEL, attempt.served_by)
        body = guard.feed(static_body(request, step.text, created=int(wall_s())))
        return Answer(attempt, mark.splice(body), mark, said=said, splice=splice)


_ENDING: Final = "the gateway is ending"
