"""The data plane's ASGI endpoint: `/v1/*`, bytes in and bytes out.

No framework in between: a request costs a dictionary look-up for its path, one for its key, one parse of its body.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any, Protocol

from gateway.accounts.accounts import Accounts
from gateway.accounts.terms import is_limited
from gateway.clock import wall_s
from gateway.dataplane.access import MODELS, authenticate, models_body, require_adapter
from gateway.dataplane.accounting import FULL, Accounting
from gateway.dataplane.admission import Admission, denied
from gateway.dataplane.answers import (
    STATIC_MODEL,
    defect_body,
    static_plain,
    static_stream,
)
from gateway.dataplane.attempt import Answer, Asker
from gateway.dataplane.body import BODY_LIMIT, check_length, read_body
from gateway.dataplane.call import Call, ClientLeft
from gateway.dataplane.decide import decide
from gateway.dataplane.explain import Document, explain
from gateway.dataplane.journey import Attempt, Journey, Wait
from gateway.dataplane.limits import Limited
from gateway.dataplane.listener import ON_DISCONNECT
from gateway.dataplane.marks import Mark
from gateway.dataplane.patience import Patience
from gateway.dataplane.record import Record
from gateway.dataplane.refusals import JSON, MethodNotAllowed, give_up, pass_on, refuse
from gateway.dataplane.relay import Send, read_end, relay_stream, send_whole, start_of_stream
from gateway.dataplane.request import PATHS, Request, parse_request
from gateway.dataplane.retry_budget import RetryBudget
from gateway.dataplane.verdict import is_clients_mistake
from gateway.errors import NotAdmitted, Reason, RequestError, ShuttingDown, UpstreamError
from gateway.fleet.fleet import Fleets
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, ProviderStep, StaticStep
from gateway.upstream.provider_request import Endpoint, unsuited

log = logging.getLogger(__name__)

ENDPOINTS: dict[str, Endpoint] = {path: endpoint for endpoint, path in PATHS.items()}


class PolicySource(Protocol):
    """Where the version in force is read from, once a request."""

    @property
    def current(self) -> CompiledPolicy | None:
        """The version in force; None before the first one."""


class DataPlane:
    """The endpoint. One instance a process; all state of a request lives in its own call. ``calls``: those running."""

    def __init__(
        self,
        policies: PolicySource,
        fleets: Fleets,
        asker: Asker,
        record: Record,
        *,
        body_limit: int = BODY_LIMIT,
        retry_share: float = 1.0,
        accounts: Accounts | None = None,
    ) -> None:
        self._policies = policies
        self._fleets = fleets
        self._asker = asker
        self._record = record
        self._body_limit = body_limit
        self._id_prefix = os.urandom(6).hex()
        self._count = 0
        self._budget = RetryBudget(0.0, share=retry_share)
        self._books = Accounting(Accounts(record.metrics) if accounts is None else accounts, record.metrics)
        self.admission = Admission()
        self.calls: set[Call] = set()
        self._patience = Patience(self.calls)
        record.in_flight(self.calls)
        record.waiting(lambda: self.admission.waiting)
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        self._count += 1
        loop = self._loop
        if loop is None:
            self._loop = loop = asyncio.get_running_loop()
        call = Call(loop, scope["headers"], f"{self._id_prefix}{self._count:x}", self._policies.current)
        scope[ON_DISCONNECT] = call.client_left
        self.calls.add(call)
        if not self._patience.watching:
            self._patience.watch()
        try:
            try:
                await self._answer(call, scope, receive, send)
            except asyncio.CancelledError as error:
                await self._end(call, call.why_cancelled(error), receive, send)
            except Exception as error:
                await self._end(call, error, receive, send)
        except asyncio.CancelledError:
            if isinstance(call.ended_by, ClientLeft):
                # It left while it was told why it gets no answer.
                self._record.client_left()
            elif not self._ending:
                raise
            # Else the server's own patience is over with a client that does not read how its answer ended.
        finally:
            self.calls.discard(call)

    def explain(self, customer: CustomerPolicy, model: str, *, stream: bool, now: float) -> Document:
        """The plan that would be made for one of ``customer``'s own models, and why. It changes nothing."""
        return explain(
            customer,
            self._fleets.look(customer.fleet.name, model),
            self._asker.hosted,
            adapter=model,
            stream=stream,
            retries_left=self._budget.left(now),
            withheld=lambda step: self._books.why_not(customer, step, now),
            now=now,
        )

    @property
    def in_flight(self) -> int:
        """Requests that are being answered now."""
        return len(self.calls)

    def end_requests(self) -> None:
        """The drain time is over: running streams end with an error frame, what waits for an answer gets a 503."""
        self._ending = True
        error = ShuttingDown("the gateway is shutting down")
        for call in tuple(self.calls):
            if call.stream is not None:
                call.stream.abort(error)
            elif not call.answered:
                call.end(error)

    async def _end(self, call: Call, why: BaseException, receive: Any, send: Send) -> None:
        """End a request that came to no answer of its own."""
        if isinstance(why, RequestError):
            await refuse(call, why, receive, send)
        elif isinstance(why, ShuttingDown):
            # Nothing is wrong with the request, and another gateway or the next one can answer it.
            await give_up(call, send, [str(why)], again=True)
        elif isinstance(why, ClientLeft):
            self._record.client_left()
        elif not isinstance(why, Exception):
            raise why  # a cancellation from elsewhere
        else:
            self._record.defect(why)
            if call.answered:
                raise why  # the server logs it, and cuts the connection off
            log.error("a defect in a request", exc_info=why)
            await send_whole(send, 500, call.headers("none"), JSON, defect_body())

    async def _answer(self, call: Call, scope: dict[str, Any], receive: Any, send: Send) -> None:
        path: str = scope["path"]
        method: str = scope["method"]
        endpoint = ENDPOINTS.get(path)
        if endpoint is None and path != MODELS and not path.startswith(MODELS + "/"):
            raise RequestError(404, f"{method} {path} is not served here.", code="not_found")
        wanted = "GET" if endpoint is None else "POST"
        if method != wanted:
            raise MethodNotAllowed(path, method, wanted)
        policy = call.policy
        if policy is None:
            check_length(scope["headers"], self._body_limit)
            await read_body(call, receive, self._body_limit)
            await give_up(call, send, ["no policy version is loaded yet"], again=True)
            return
        customer = authenticate(policy, call.header(b"authorization"))
        if endpoint is None:
            await send_whole(send, 200, call.headers("none"), JSON, models_body(policy, customer, path))
            return
        check_length(scope["headers"], self._body_limit)
        request = parse_request(
            await read_body(call, receive, self._body_limit),
            id=call.id,
            endpoint=endpoint,
            fallback_allowed=not (wish := call.header(b"x-failsoft-fallback")) or wish.strip().lower() != b"never",
        )
        require_adapter(customer, request.model)
        if not is_limited(customer):
            await self._serve(call, customer, request, send)
            return
        try:
            ticket = await self._books.enter(call, customer, request)
        except Limited as error:
            self._record.limited(customer, error)
            raise
        try:
            await self._serve(call, customer, request, send)
        finally:
            ticket.end(call.tokens, call.clock())

    async def _serve(self, call: Call, customer: CustomerPolicy, request: Request, send: Send) -> None:
        if self._ending:
            raise ShuttingDown("the gateway is shutting down")
        clock = call.clock
        began = clock()
        self._budget.request()
        boxes = self._fleets.boxes_for(customer.fleet.name, request.model)
        plan = decide(
            customer,
            boxes,
            adapter=request.model,
            stream=request.stream,
            fallback_allowed=request.fallback_allowed,
            now=began,
        )
        journey = Journey(
            plan,
            customer,
            stream=request.stream,
            now=began,
            take_retry=self._take_retry,
            unsuited=lambda step: (
                unsuited(step, request.endpoint, request.fields) or self._books.why_not(customer, step, clock())
            ),
            static_suits=lambda step: step.even_for_tools or not request.asks_for_structure,
            providers=self._asker.hosted,
        )
        while (attempt := journey.next(clock())) is not None:
            if isinstance(attempt, Wait):
                await self._wait(call, customer, request, attempt, journey)
                continue
            if attempt.number == 1 and attempt.reason is Reason.BACKEND_SATURATED:
                denied(boxes, request.model, clock())
            call.attempts = attempt.number
            if isinstance(attempt.step, StaticStep):
                self._books.withheld(customer, journey.tried)
                await self._send_static(call, customer, request, attempt, attempt.step, send)
                return
            hired = None
            if isinstance(attempt.step, ProviderStep):
                hired = self._books.at_provider(customer, request, attempt.step, clock())
                if hired is None:
                    journey.failed(attempt, NotAdmitted(FULL))
                    continue
            try:
                try:
                    answer = await self._asker.ask(request, attempt, clock)
                except UpstreamError as error:
                    journey.failed(attempt, error)
                    final = attempt.box is not None and is_clients_mistake(error)
                    self._record.attempt_failed(customer, attempt, error, final=final)
                    if final:
                        await pass_on(call, error, send)
                        self._record.refused(customer)
                        return
                    continue
                if journey.tried:
                    self._books.withheld(customer, journey.tried)
                await self._relay(call, customer, request, answer, began, send)
                return
            finally:
                if hired is not None:
                    hired.release(clock())
        self._books.withheld(customer, journey.tried)
        call.attempts = journey.started
        self._record.unavailable(customer, journey)
        await give_up(call, send, journey.tried)

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
        exchange, permit = answer.exchange, answer.permit
        try:
            self._record.committed(customer, answer, clock() - began)
            headers = call.headers(answer.attempt.served_by, answer.mark)
            call.answered = True
            if exchange is None:
                await send_whole(send, 200, headers, JSON, answer.body)
                self._record.ended(answer, clock() - began)
                return
            call.stream = answer
            error = await relay_stream(send, headers, answer, clock, stall_timeout_s=customer.stall_timeout_s)
            call.stream = None
            self._record.ended(answer, clock() - began)
            if error is not None:
                self._record.stream_broke(customer, answer, error)
                if permit is not None:
                    permit.failed(error, clock())
                return
            if permit is not None:
                permit.released()
            await read_end(exchange, clock())
        finally:
            call.stream = None
            if exchange is not None:
                exchange.close()
            if permit is not None:
                permit.released()
            call.tokens = self._books.answered(customer, request, answer)

    async def _send_static(
        self, call: Call, customer: CustomerPolicy, request: Request, attempt: Attempt, step: StaticStep, send: Send
    ) -> None:
        if attempt.reason is None:
            raise TypeError("a static answer is always degraded")
        mark = Mark(attempt.reason, request.model, STATIC_MODEL, attempt.served_by)
        headers = call.headers(attempt.served_by, mark)
        created = int(wall_s())
        self._record.static(customer, attempt)
        self._books.static(customer, attempt)
        call.answered = True
        if request.stream:
            await send(start_of_stream(headers))
            body = mark.splice(static_stream(request, step.text, created=created))
            await send({"type": "http.response.body", "body": body})
        else:
            await send_whole(send, 200, headers, JSON, mark.splice(static_plain(request, step.text, created=created)))
