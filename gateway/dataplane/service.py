"""Serves one request that may be served: plans, attempts one target after the other, relays what the first one says."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gateway.clock import wall_s
from gateway.dataplane.accounting import Accounting
from gateway.dataplane.answers import STATIC_MODEL, static_body
from gateway.dataplane.attempt import Answer, Asker
from gateway.dataplane.attempts import Attempts
from gateway.dataplane.call import Call
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.continuation import Continuation
from gateway.dataplane.decide import Plan, decide
from gateway.dataplane.dialect import wording_of
from gateway.dataplane.drill_share import DrillShare
from gateway.dataplane.explain import Document, explain
from gateway.dataplane.journey import Journey, OtherVersion
from gateway.dataplane.marks import Mark
from gateway.dataplane.racing import ClientsMistake
from gateway.dataplane.record import Record
from gateway.dataplane.refusals import JSON, RETRY_AFTER_S, give_up, pass_on
from gateway.dataplane.relay import Send, read_end, relay_stream, send_whole, start_of_stream
from gateway.dataplane.request import RESUMABLE, Request
from gateway.dataplane.resuming import Resumer
from gateway.dataplane.stream_guard import StreamGuard
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.fleet.obstacle import kept_off_s
from gateway.orders.forced import Forced
from gateway.policy.compiled import CustomerPolicy, ProviderStep, StaticStep
from gateway.upstream.provider_request import unsuited

SEED_BITS: Final = 48
"""Of the seeds that streams get; boxes take 64 with a sign, and JSON's readers 53."""


class Service:
    """Of all requests of one process. ``forced``: who is degraded by order. ``drills`` draws who takes part in one."""

    def __init__(
        self,
        fleets: Fleets,
        asker: Asker,
        record: Record,
        books: Accounting,
        *,
        retry_share: float,
        forced: Forced,
        drills: DrillShare,
    ) -> None:
        self._fleets = fleets
        self._asker = asker
        self._record = record
        self._books = books
        self._forced = forced
        self._drills = drills
        self._attempts = Attempts(asker, record, books, retry_share=retry_share)
        self._resumer = Resumer(fleets)
        self.admission = self._attempts.admission

    def explain(
        self, customer: CustomerPolicy, adapter: str, *, stream: bool, now: float, others: Sequence[str] = ()
    ) -> Document:
        """The plan that would be made for one of ``customer``'s own adapters, and why. It changes nothing."""
        fleet = customer.fleet.name
        return explain(
            customer,
            self._fleets.look(fleet, adapter),
            self._asker.hosted,
            adapter=adapter,
            others=[(other, self._fleets.look(fleet, other)) for other in others],
            stream=stream,
            retries_left=self._attempts.retries_left(now),
            withheld=lambda step: self._books.why_not(customer, step, now),
            now=now,
            forced=self._forced.holds(customer.name, now),
        )

    async def serve(self, call: Call, customer: CustomerPolicy, request: Request, send: Send) -> None:
        """Answer ``request``, whatever becomes of the attempts."""
        clock = call.clock
        began = clock()
        self._attempts.requested(request, began)
        terms = customer
        if request.deadline_s is not None and request.deadline_s < customer.deadline_s:
            terms = replace(customer, deadline_s=request.deadline_s)
        if request.endpoint in RESUMABLE:
            request.resumes = customer.on_broken_stream == "resume"
            request.restarts = customer.on_broken_stream == "restart"
        if request.resumes and customer.seed_streams and request.stream and request.is_sampled:
            request.seed = secrets.randbits(SEED_BITS)
        boxes = self._fleets.boxes_for(customer.fleet.name, request.adapter)
        # Who asks for the own adapter or an error is left out of both.
        forced = request.fallback_only or (request.fallback_allowed and self._forced.holds(customer.name, began))
        drill = None
        if customer.drill_share and request.fallback_allowed and not forced:
            drill = self._drills.draw(customer)
        plan = _plan(terms, boxes, request, request.adapter, began, planned=forced or drill is not None)
        journey = Journey(
            plan,
            terms,
            stream=request.stream,
            now=began,
            take_retry=self._attempts.take_retry,
            unsuited=lambda step: _unsuited(request, step) or self._books.why_not(customer, step, clock()),
            static_suits=lambda step: step.even_for_tools or not request.asks_for_structure,
            providers=self._asker.hosted,
            other_version=self._other_versions(customer, request) if request.others else None,
            forced=forced,
            drill=drill,
        )
        if request.adapter != request.model:
            self._record.resolved(customer, request)
        try:
            answer = await self._attempts.first(call, customer, request, journey, boxes)
        except ClientsMistake as mistake:
            await pass_on(call, mistake.error, send)
            self._record.refused(customer)
            return
        call.attempts = journey.started
        if journey.tried:
            self._books.withheld(customer, journey.tried)
        if isinstance(answer, Answer):
            if answer.exchange is None:
                await self._give(call, customer, request, answer, began, send)
                return
            resumer, attempts, record, books = self._resumer, self._attempts, self._record, self._books
            stream = Continuation(
                call, customer, request, answer, journey, boxes,
                resumer=resumer, attempts=attempts, record=record, books=books,
            )  # fmt: skip
            await self._relay(call, customer, request, stream, began, send)
        elif answer is not None:
            await self._send_static(call, customer, request, answer, send)
        else:
            retry_after_s = RETRY_AFTER_S
            if (held_s := kept_off_s(boxes, request.adapter, clock())) is not None:
                retry_after_s = max(1, math.ceil(held_s))
                how = f"for {retry_after_s} s" if held_s else "but for one request at a time"
                journey.tried.append(f"the adapter is kept off the boxes {how}, as boxes ended while it was asked for")
            self._record.unavailable(customer, journey)
            await give_up(call, send, journey.tried, retry_after_s=retry_after_s)

    def _other_versions(self, customer: CustomerPolicy, request: Request) -> OtherVersion:
        left = iter(request.others)

        def next_plan(now: float) -> Plan | None:
            adapter = next(left, None)
            if adapter is None:
                return None
            self._record.other_version(customer, request, adapter)
            boxes = self._fleets.boxes_for(customer.fleet.name, adapter)
            return _plan(customer, boxes, request, adapter, now)

        return next_plan

    async def _give(
        self, call: Call, customer: CustomerPolicy, request: Request, answer: Answer, began: float, send: Send
    ) -> None:
        """Send an answer that is all there."""
        clock = call.clock
        try:
            self._record.committed(customer, answer, clock() - began)
            headers = call.headers(answer.attempt.served_by, answer.mark)
            call.answered = True
            await send_whole(send, 200, headers, JSON, answer.body)
            self._record.ended(answer, clock() - began)
            self._record.whole(customer, answer)
        finally:
            answer.drop(clock())
            call.over(self._used(customer, request, answer))

    async def _relay(
        self, call: Call, customer: CustomerPolicy, request: Request, stream: Continuation, began: float, send: Send
    ) -> None:
        clock = call.clock
        settled = False
        answer = stream.answer
        try:
            self._record.committed(customer, answer, clock() - began)
            headers = call.headers(answer.attempt.served_by, answer.mark)
            call.answered = True
            call.stream = answer
            error = await relay_stream(
                send,
                headers,
                answer,
                clock,
                endpoint=request.endpoint,
                stall_timeout_s=customer.stall_timeout_s,
                go_on=stream.go_on,
            )
            call.stream = None
            answer = stream.answer
            self._record.ended(answer, clock() - began)
            if error is not None:
                self._record.stream_broke(customer, answer, error, stream.why)
                if answer.permit is not None:
                    answer.permit.failed(error, clock())
                return
            self._record.whole(customer, answer)
            if answer.splice is not None and isinstance(answer.guard, StreamGuard):
                answer.guard.usage = answer.splice.usage
            if answer.permit is not None:
                answer.permit.released()
            # The client has its answer, and may ask again: what follows is only for the connection's sake.
            settled = True
            call.over(self._used(customer, request, answer))
            if answer.exchange is not None:
                await read_end(answer.exchange, clock())
        finally:
            call.stream = None
            stream.answer.drop(clock())
            if not settled:
                call.over(self._used(customer, request, stream.answer))

    def _used(self, customer: CustomerPolicy, request: Request, answer: Answer) -> int:
        """Count an answer that is over, in whichever way. The tokens that it took."""
        if answer.attempt.kind == "static":
            self._books.static(customer, answer.attempt)
            return 0
        return self._books.answered(customer, request, answer)

    async def _send_static(
        self, call: Call, customer: CustomerPolicy, request: Request, attempt: Attempt, send: Send
    ) -> None:
        step = attempt.step
        if attempt.reason is None or not isinstance(step, StaticStep):
            raise TypeError("fixed text is a step's, and always degraded")
        mark = Mark(attempt.reason, request.model, STATIC_MODEL, attempt.served_by)
        headers = call.headers(attempt.served_by, mark)
        body = mark.splice(static_body(request, step.text, created=int(wall_s()), wording=wording_of(request)))
        self._record.static(customer, attempt)
        self._books.static(customer, attempt)
        call.answered = True
        if request.stream:
            await send(start_of_stream(headers))
            await send({"type": "http.response.body", "body": body})
        else:
            await send_whole(send, 200, headers, JSON, body)


def _unsuited(request: Request, step: ProviderStep) -> str | None:
    asked_for = request.as_chat
    return asked_for if isinstance(asked_for, str) else unsuited(step, *asked_for)


def _plan(
    customer: CustomerPolicy, boxes: Sequence[Box], request: Request, adapter: str, now: float, *, planned: bool = False
) -> Plan:
    return decide(
        customer,
        boxes,
        adapter=adapter,
        stream=request.stream,
        fallback_allowed=request.fallback_allowed,
        now=now,
        planned=planned,
    )
