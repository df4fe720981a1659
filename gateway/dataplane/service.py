"""Serves one request that may be served: plans, attempts one target after the other, relays what the first one says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from gateway.clock import wall_s
from gateway.dataplane.accounting import FULL, Accounting
from gateway.dataplane.admission import Admission, denied
from gateway.dataplane.answers import STATIC_MODEL, static_body
from gateway.dataplane.attempt import Answer, Asker
from gateway.dataplane.call import Call
from gateway.dataplane.candidate import Attempt, Wait
from gateway.dataplane.decide import Plan, decide
from gateway.dataplane.dialect import wording_of
from gateway.dataplane.drill_share import DrillShare
from gateway.dataplane.explain import Document, explain
from gateway.dataplane.journey import Journey, OtherVersion
from gateway.dataplane.marks import Mark
from gateway.dataplane.racing import ClientsMistake, Race
from gateway.dataplane.record import Record
from gateway.dataplane.refusals import JSON, give_up, pass_on
from gateway.dataplane.relay import Send, read_end, relay_stream, send_whole, start_of_stream
from gateway.dataplane.request import RESUMABLE, Request
from gateway.dataplane.resuming import Resumer
from gateway.dataplane.retry_budget import RACES_PER_SECOND, REQUESTS_PER_RACE, RetryBudget
from gateway.dataplane.stream_guard import StreamGuard
from gateway.dataplane.verdict import is_clients_mistake
from gateway.errors import NotAdmitted, Reason, UpstreamError, UpstreamTimeout
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.orders.forced import Forced
from gateway.policy.compiled import CustomerPolicy, ProviderStep, StaticStep
from gateway.upstream.provider_request import unsuited


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
        self._budget = RetryBudget(0.0, share=retry_share)
        self._races = RetryBudget(0.0, share=retry_share, per_second=RACES_PER_SECOND, requests_each=REQUESTS_PER_RACE)
        self._resumer = Resumer(fleets)
        self.admission = Admission()

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
            retries_left=self._budget.left(now),
            withheld=lambda step: self._books.why_not(customer, step, now),
            now=now,
            forced=self._forced.holds(customer.name, now),
        )

    async def serve(self, call: Call, customer: CustomerPolicy, request: Request, send: Send) -> None:
        """Answer ``request``, whatever becomes of the attempts."""
        clock = call.clock
        began = clock()
        self._budget.request()
        self._races.request()
        if request.is_retry:
            self._budget.spent_elsewhere(began)
        terms = customer
        if request.deadline_s is not None and request.deadline_s < customer.deadline_s:
            terms = replace(customer, deadline_s=request.deadline_s)
        request.resumes = customer.on_broken_stream == "resume" and request.endpoint in RESUMABLE
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
            take_retry=self._take_retry,
            unsuited=lambda step: _unsuited(request, step) or self._books.why_not(customer, step, clock()),
            static_suits=lambda step: step.even_for_tools or not request.asks_for_structure,
            providers=self._asker.hosted,
            other_version=self._other_versions(customer, request) if request.others else None,
            forced=forced,
            drill=drill,
        )
        if request.adapter != request.model:
            self._record.resolved(customer, request)
        while (attempt := journey.next(clock())) is not None:
            if request.fallback_only and (isinstance(attempt, Wait) or attempt.kind == "own"):
                break  # who asks what the fallback says is not to be told what the adapter says
            if isinstance(attempt, Wait):
                await self._wait(call, customer, request, attempt, journey)
                continue
            if attempt.number == 1 and attempt.reason is Reason.BACKEND_SATURATED:
                denied(boxes, request.adapter, clock())
            call.attempts = attempt.number
            if attempt.extra:
                self._record.asked_beyond_limits()
            if isinstance(attempt.step, StaticStep):
                self._books.withheld(customer, journey.tried)
                await self._send_static(call, customer, request, attempt, attempt.step, send)
                return
            try:
                answer = await self._attempt(call, customer, request, attempt, journey)
            except ClientsMistake as mistake:
                await pass_on(call, mistake.error, send)
                self._record.refused(customer)
                return
            if answer is None:
                continue
            call.attempts = journey.started
            if journey.tried:
                self._books.withheld(customer, journey.tried)
            await self._relay(call, customer, request, answer, began, send)
            return
        self._books.withheld(customer, journey.tried)
        call.attempts = journey.started
        self._record.unavailable(customer, journey)
        await give_up(call, send, journey.tried)

    async def _attempt(
        self, call: Call, customer: CustomerPolicy, request: Request, attempt: Attempt, journey: Journey
    ) -> Answer | None:
        """The answer to one attempt, or to one that was made beside it; None where there was none. Raises
        ClientsMistake."""

        def ask(beside: Attempt) -> Coroutine[Any, Any, Answer]:
            return self._ask(call, customer, request, beside, journey)

        if attempt.kind != "own" or not request.stream or attempt.forced:
            try:
                return await ask(attempt)
            except UpstreamError:
                return None
        race = Race(call.task, attempt, journey, ask, now=call.clock, may_begin=self._races.take)
        try:
            answer = await self._ask(call, customer, request, attempt, journey, race.overdue)
            race.won_by_first()
            return answer
        except UpstreamError:
            return await race.second() if race.began else None
        except asyncio.CancelledError:
            if not race.decided or call.ended_by is not None:
                raise
            call.task.uncancel()
            self._failed(customer, attempt, UpstreamTimeout("silent for its budget"), journey)
            return await race.second()
        finally:
            if race.began:
                self._record.raced(race.winner)
                await race.close()

    async def _ask(
        self,
        call: Call,
        customer: CustomerPolicy,
        request: Request,
        attempt: Attempt,
        journey: Journey,
        on_overdue: Callable[[], float] | None = None,
    ) -> Answer:
        """Ask one target. Of an UpstreamError that this raises, the journey was told. Raises ClientsMistake, too."""
        hired = None
        if isinstance(attempt.step, ProviderStep):
            hired = await self._books.at_provider(call, customer, request, attempt.step)
            if hired is None:
                error = NotAdmitted(FULL)
                journey.failed(attempt, error)
                raise error
        try:
            answer = await self._asker.ask(request, attempt, call.clock, on_overdue)
        except BaseException as error:
            if hired is not None:
                hired.release(call.clock())
            if isinstance(error, UpstreamError):
                self._failed(customer, attempt, error, journey)
            raise
        answer.hired = hired
        return answer

    def _failed(self, customer: CustomerPolicy, attempt: Attempt, error: UpstreamError, journey: Journey) -> None:
        """Raises ClientsMistake where that is what the error says."""
        journey.failed(attempt, error)
        final = attempt.box is not None and is_clients_mistake(error)
        self._record.attempt_failed(customer, attempt, error, final=final)
        if final:
            raise ClientsMistake(error) from error

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

    async def _wait(self, call: Call, customer: CustomerPolicy, request: Request, wait: Wait, journey: Journey) -> None:
        began = call.clock()
        grant = await self.admission.room(call.loop, wait, customer, request)
        self._record.waited(call.clock() - began, served=grant is not None)
        journey.waited(*grant) if grant is not None else journey.waited(None)

    def _take_retry(self, now: float) -> bool:
        allowed = self._budget.take(now)
        if not allowed:
            self._record.retry_denied()
        return allowed

    async def _relay(
        self, call: Call, customer: CustomerPolicy, request: Request, answer: Answer, began: float, send: Send
    ) -> None:
        clock = call.clock
        settled = False
        why = ""

        async def go_on(broken: Answer, error: UpstreamError) -> Answer | None:
            nonlocal answer, why
            call.stream = None
            if broken.permit is not None:
                broken.permit.failed(error, clock())
            broken.drop(clock())
            rest = await self._resumer.go_on(customer, request, broken, clock)
            if not isinstance(rest, Answer):
                why = rest
                return None
            self._record.resumed(customer, broken, rest, error)
            call.stream = answer = rest
            return rest

        try:
            self._record.committed(customer, answer, clock() - began)
            headers = call.headers(answer.attempt.served_by, answer.mark)
            call.answered = True
            if answer.exchange is None:
                await send_whole(send, 200, headers, JSON, answer.body)
                self._record.ended(answer, clock() - began)
                self._record.whole(customer, answer)
                return
            call.stream = answer
            error = await relay_stream(
                send,
                headers,
                answer,
                clock,
                endpoint=request.endpoint,
                stall_timeout_s=customer.stall_timeout_s,
                go_on=go_on,
            )
            call.stream = None
            self._record.ended(answer, clock() - began)
            if error is not None:
                self._record.stream_broke(customer, answer, error, why)
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
            call.over(self._books.answered(customer, request, answer))
            await read_end(answer.exchange, clock())
        finally:
            call.stream = None
            answer.drop(clock())
            if not settled:
                call.over(self._books.answered(customer, request, answer))

    async def _send_static(
        self, call: Call, customer: CustomerPolicy, request: Request, attempt: Attempt, step: StaticStep, send: Send
    ) -> None:
        if attempt.reason is None:
            raise TypeError("a static answer is always degraded")
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
