"""The data plane's ASGI endpoint: `/v1/*`, bytes in and bytes out.

No framework in between: a request costs a dictionary look-up for its path, one for its key, one parse of its body.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from gateway.accounts.accounts import Accounts
from gateway.accounts.terms import is_limited
from gateway.dataplane.access import MODELS, authenticate, models_body, require_operator, resolve
from gateway.dataplane.accounting import Accounting
from gateway.dataplane.answers import (
    defect_body,
    enveloped,
)
from gateway.dataplane.attempt import Asker
from gateway.dataplane.body import BODY_LIMIT, check_length, read_body
from gateway.dataplane.call import Call, ClientLeft
from gateway.dataplane.conversation import HEADER as CONVERSATION
from gateway.dataplane.cross_origin import CrossOrigin
from gateway.dataplane.deadline import RETRIES, TIMEOUT, deadline_of
from gateway.dataplane.description import DESCRIPTION, description
from gateway.dataplane.drill_share import DrillShare
from gateway.dataplane.explain import Document
from gateway.dataplane.listener import ON_DISCONNECT
from gateway.dataplane.patience import Patience
from gateway.dataplane.record import Record
from gateway.dataplane.refusals import JSON, MethodNotAllowed, give_up, refuse, send_options
from gateway.dataplane.relay import Send, send_whole
from gateway.dataplane.request import PATHS, Request, parse_request
from gateway.dataplane.service import Service
from gateway.errors import RequestError, ShuttingDown
from gateway.fleet.fleet import Fleets
from gateway.orders.forced import Forced
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy
from gateway.upstream.provider_request import Endpoint

log = logging.getLogger(__name__)

ENDPOINTS: dict[str, Endpoint] = {path: endpoint for endpoint, path in PATHS.items()}
ENDPOINT_METHODS = "POST, OPTIONS"
MODELS_METHODS = "GET, HEAD, OPTIONS"
_BESIDE_MESSAGES = f"{PATHS['messages']}/"


class PolicySource(Protocol):
    """Where the version in force is read from, once a request."""

    @property
    def current(self) -> CompiledPolicy | None:
        """The version in force; None before the first one."""


class DataPlane:
    """The endpoint. One instance a process; all state of a request lives in its own call. ``calls``: those running.

    ``forced``: who is degraded by order. ``uniform``: numbers from 0 to 1, by which requests take part in drills.
    ``admin_token``: the gateway's own; who has it may ask for the fallback's answer, as evals do.
    ``cors_origins``: whose pages may ask.
    """

    def __init__(
        self,
        policies: PolicySource,
        fleets: Fleets,
        asker: Asker,
        record: Record,
        *,
        body_limit: int = BODY_LIMIT,
        retry_share: float = 1.0,
        forced: Forced | None = None,
        uniform: Callable[[], float] = random.random,
        accounts: Accounts | None = None,
        admin_token: str | None = None,
        cors_origins: Sequence[str] = (),
    ) -> None:
        self._policies = policies
        self._record = record
        self._books = Accounting(Accounts(record.metrics) if accounts is None else accounts, record.metrics)
        self._service = Service(
            fleets,
            asker,
            record,
            self._books,
            retry_share=retry_share,
            forced=Forced() if forced is None else forced,
            drills=DrillShare(uniform),
        )
        self._body_limit = body_limit
        self._operator = hashlib.sha256(admin_token.encode()).digest() if admin_token else None
        self._cross_origin = CrossOrigin(cors_origins) if cors_origins else None
        self._id_prefix = os.urandom(6).hex()
        self._count = 0
        self.admission = self._service.admission
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
        if self._cross_origin is not None:
            call.cross_origin = self._cross_origin.headers(call.header(b"origin"))
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

    def explain(
        self, customer: CustomerPolicy, adapter: str, *, stream: bool, now: float, others: Sequence[str] = ()
    ) -> Document:
        """The plan that would be made for one of ``customer``'s own adapters, and why. It changes nothing."""
        return self._service.explain(customer, adapter, stream=stream, now=now, others=others)

    @property
    def in_flight(self) -> int:
        """Requests that are being answered now."""
        return len(self.calls)

    def end_requests(self) -> None:
        """The drain time is over: running streams end with an error frame, what waits for an answer gets a 503."""
        self._ending = True
        error = ShuttingDown("the gateway is shutting down")
        for call in tuple(self.calls):
            if call.answered:
                call.cut(error)
            else:
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
            await send_whole(send, 500, call.headers("none"), JSON, enveloped(call.endpoint, 500, defect_body()))

    async def _answer(self, call: Call, scope: dict[str, Any], receive: Any, send: Send) -> None:
        path: str = scope["path"]
        method: str = scope["method"]
        endpoint = ENDPOINTS.get(path)
        if endpoint is None and path not in (MODELS, DESCRIPTION) and not path.startswith(MODELS + "/"):
            if path.startswith(_BESIDE_MESSAGES):
                # `count_tokens` and what else is not served there: who asks for it reads Anthropic's errors.
                call.endpoint = "messages"
            raise RequestError(404, f"{method} {path} is not served here.", code="not_found")
        call.endpoint = endpoint
        methods = MODELS_METHODS if endpoint is None else ENDPOINT_METHODS
        if method != "POST" or endpoint is None:
            if method == "OPTIONS":
                # Without a word of CORS, unless told so: a page of another origin is not to hold a customer's key.
                leave = None
                if self._cross_origin is not None:
                    wanted = call.header(b"access-control-request-headers")
                    leave = self._cross_origin.preflight(call.header(b"origin"), methods, wanted)
                await send_options(call, send, methods, leave)
                return
            if endpoint is not None or method not in ("GET", "HEAD"):
                raise MethodNotAllowed(path, method, methods)
        if path == DESCRIPTION:
            await send_whole(send, 200, call.headers("none"), JSON, description())
            return
        policy = call.policy
        if policy is None:
            check_length(scope["headers"], self._body_limit)
            await read_body(call, receive, self._body_limit)
            await give_up(call, send, ["no policy version is loaded yet"], again=True)
            return
        customer = authenticate(policy, call.header(b"authorization"), call.header(b"x-api-key"))
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
        if timeout := call.header(TIMEOUT):
            request.deadline_s = deadline_of(timeout)
        request.is_retry = call.header(RETRIES) not in (b"", b"0")
        if wish and wish.strip().lower() == b"only":
            require_operator(policy, call.header(b"x-failsoft-admin-token").strip(), self._operator)
            request.fallback_only = True
        if request.model not in customer.adapters:
            resolve(customer, request, call.header(CONVERSATION))
        if not is_limited(customer):
            await self._serve(call, customer, request, send)
            return
        call.ticket = await self._books.enter(call, customer, request)
        try:
            await self._serve(call, customer, request, send)
        finally:
            call.over()

    def _serve(self, call: Call, customer: CustomerPolicy, request: Request, send: Send) -> Coroutine[Any, Any, None]:
        # No coroutine of its own: all that happens to a request would pass through it.
        if self._ending:
            raise ShuttingDown("the gateway is shutting down")
        return self._service.serve(call, customer, request, send)
