"""The data plane's ASGI endpoint: `/v1/*`, bytes in and bytes out.

No framework in between: a request costs a dictionary look-up for its path, one for its key, one parse of its body.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol

from gateway.clock import today_utc, wall_s
from gateway.dataplane.answers import request_error_body, static_plain, static_stream, unavailable_body
from gateway.dataplane.attempt import Answer, Asker
from gateway.dataplane.body import BODY_LIMIT, ClientLeft, check_length, discard_rest, read_body
from gateway.dataplane.decide import decide
from gateway.dataplane.journey import Attempt, Journey
from gateway.dataplane.listing import adapter_object, adapters_list
from gateway.dataplane.marks import Headers, Mark, answer_headers
from gateway.dataplane.record import Record
from gateway.dataplane.relay import Send, relay_stream, send_whole, start_of_stream
from gateway.dataplane.request import PATHS, Endpoint, Request, parse_request
from gateway.dataplane.retry_budget import RetryBudget
from gateway.dataplane.verdict import is_clients_mistake
from gateway.errors import ErrorFrame, RequestError, ShuttingDown, UpstreamError, UpstreamStatus
from gateway.fleet.fleet import Fleets
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, StaticStep
from gateway.upstream.provider_request import unsuited

ENDPOINTS: dict[str, Endpoint] = {path: endpoint for endpoint, path in PATHS.items()}
MODELS = "/v1/models"
RETRY_AFTER_S = 5
"""What a client is told to wait when nothing could answer: a breaker tries again within 8 s, on average in half."""

JSON = b"application/json"


class PolicySource(Protocol):
    """Where the version in force is read from, once a request."""

    @property
    def current(self) -> CompiledPolicy | None:
        """The version in force; None before the first one."""


class DataPlane:
    """The endpoint. One instance a process; all state of a request lives in its own call."""

    def __init__(
        self, policies: PolicySource, fleets: Fleets, asker: Asker, record: Record, *, body_limit: int = BODY_LIMIT
    ) -> None:
        self._policies = policies
        self._fleets = fleets
        self._asker = asker
        self._record = record
        self._body_limit = body_limit
        self._id_prefix = os.urandom(6).hex()
        self._count = 0
        self._budget = RetryBudget(0.0)
        self._streams: set[Answer] = set()
        self._ending = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        self._count += 1
        call = _Call(scope, f"{self._id_prefix}{self._count:x}", self._policies.current)
        task = asyncio.current_task()
        if task is not None:
            scope["failsoft.on_disconnect"] = call.leaves(task)
        self._record.in_flight += 1
        try:
            await self._answer_or_refuse(call, receive, send)
        except ClientLeft:
            self._record.client_left()
        except asyncio.CancelledError:
            if not call.left or task is None:
                raise
            task.uncancel()
            self._record.client_left()
        finally:
            self._record.in_flight -= 1

    @property
    def in_flight(self) -> int:
        """Requests that are being answered now."""
        return self._record.in_flight

    def end_streams(self) -> None:
        """The drain time is over: every running stream ends with an error frame, every waiting request with a 503."""
        self._ending = True
        error = ShuttingDown("the gateway is shutting down")
        for answer in self._streams:
            if answer.exchange is not None:
                answer.exchange.abort(error)

    async def _answer_or_refuse(self, call: _Call, receive: Any, send: Send) -> None:
        try:
            await self._answer(call, receive, send)
        except RequestError as error:
            await self._refuse(call, error, receive, send)

    async def _answer(self, call: _Call, receive: Any, send: Send) -> None:
        path: str = call.scope["path"]
        method: str = call.scope["method"]
        endpoint = ENDPOINTS.get(path)
        if endpoint is None and path != MODELS and not path.startswith(MODELS + "/"):
            raise RequestError(404, f"{method} {path} is not served here.", code="not_found")
        wanted = "GET" if endpoint is None else "POST"
        if method != wanted:
            raise RequestError(405, f"{path} takes {wanted}, not {method}.", code="method_not_allowed")
        policy = call.policy
        if policy is None:
            await self._give_up(call, send, ["no policy version is loaded yet"])
            return
        customer = _authenticate(policy, call.header(b"authorization"))
        if endpoint is None:
            body = _models(policy, customer, path)
            await send_whole(send, 200, call.headers("none", 0), JSON, body)
            return
        check_length(call.scope["headers"], self._body_limit)
        request = parse_request(
            await read_body(receive, self._body_limit),
            id=call.id,
            endpoint=endpoint,
            fallback_allowed=call.header(b"x-failsoft-fallback") != b"never",
        )
        if request.model not in customer.adapters:
            raise _no_such_model(request.model)
        await self._serve(call, customer, request, send)

    async def _serve(self, call: _Call, customer: CustomerPolicy, request: Request, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        self._budget.request()
        boxes = self._fleets.boxes_for(customer.fleet.name, request.model)
        plan = decide(customer, boxes, adapter=request.model, fallback_allowed=request.fallback_allowed, now=began)
        journey = Journey(
            plan,
            customer,
            stream=request.stream,
            now=began,
            take_retry=self._take_retry,
            unsuited=lambda step: unsuited(step, request.endpoint, request.fields),
            static_suits=lambda step: step.even_for_tools or not _asks_for_structure(request),
        )
        while (attempt := journey.next(clock())) is not None:
            if isinstance(attempt.step, StaticStep):
                await self._send_static(call, customer, request, attempt, attempt.step, send)
                return
            try:
                answer = await self._asker.ask(request, attempt)
            except UpstreamError as error:
                journey.failed(attempt, error)
                final = attempt.box is not None and is_clients_mistake(error)
                self._record.attempt_failed(customer, attempt, error, final=final)
                if final:
                    await self._pass_on(call, attempt, error, send)
                    self._record.refused(customer)
                    return
                if self._ending:
                    break
                continue
            self._record.committed(customer, answer, clock() - began)
            await self._relay(call, customer, answer, send)
            self._record.ended(answer, clock() - began)
            return
        self._record.unavailable(customer, journey)
        await self._give_up(call, send, journey.tried, attempts=journey.started)

    def _take_retry(self, now: float) -> bool:
        allowed = self._budget.take(now)
        if not allowed:
            self._record.retry_denied()
        return allowed

    async def _relay(self, call: _Call, customer: CustomerPolicy, answer: Answer, send: Send) -> None:
        attempt = answer.attempt
        headers = call.headers(attempt.served_by, attempt.number, answer.mark)
        if answer.exchange is None:
            await send_whole(send, 200, headers, answer.content_type, answer.body)
            return
        self._streams.add(answer)
        error: UpstreamError | None = None
        try:
            error = await relay_stream(send, headers, answer, stall_timeout_s=customer.stall_timeout_s)
        finally:
            self._streams.discard(answer)
            answer.exchange.close()
            if answer.permit is not None:
                if error is None or isinstance(error, ShuttingDown):
                    answer.permit.released()
                else:
                    answer.permit.failed(error, asyncio.get_running_loop().time())
        if error is not None:
            self._record.stream_broke(customer, answer, error)

    async def _send_static(
        self, call: _Call, customer: CustomerPolicy, request: Request, attempt: Attempt, step: StaticStep, send: Send
    ) -> None:
        if attempt.reason is None:
            raise TypeError("a static answer is always degraded")
        mark = Mark(attempt.reason, request.model, "static", "static")
        headers = call.headers("static", attempt.number, mark)
        created = int(wall_s())
        self._record.static(customer, attempt)
        if request.stream:
            await send(start_of_stream(headers))
            body = mark.splice(static_stream(request, step.text, created=created))
            await send({"type": "http.response.body", "body": body})
        else:
            await send_whole(send, 200, headers, JSON, mark.splice(static_plain(request, step.text, created=created)))

    async def _pass_on(self, call: _Call, attempt: Attempt, error: UpstreamError, send: Send) -> None:
        """A box's verdict on the request itself goes back as it is."""
        headers = call.headers("none", attempt.number)
        if isinstance(error, UpstreamStatus):
            await send_whole(send, error.status, headers, error.content_type or JSON, error.body)
        elif isinstance(error, ErrorFrame) and error.status is not None:
            # It came as the first event of a 200, before anything was committed: it still gets its own status.
            body = request_error_body(RequestError(error.status, str(error)))
            await send_whole(send, error.status, headers, JSON, body)

    async def _give_up(self, call: _Call, send: Send, tried: list[str], *, attempts: int = 0) -> None:
        headers = call.headers("none", attempts)
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        # The SDKs would come back twice at once: what could be tried was tried.
        headers.append((b"x-should-retry", b"false"))
        await send_whole(send, 503, headers, JSON, unavailable_body(tried))

    async def _refuse(self, call: _Call, error: RequestError, receive: Any, send: Send) -> None:
        headers = call.headers("none", 0)
        body = request_error_body(error)
        if error.status not in (413, 415):
            await send_whole(send, error.status, headers, JSON, body)
            return
        headers += [(b"content-type", JSON), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await discard_rest(receive)
        await send({"type": "http.response.body", "body": b""})


class _Call:
    """One HTTP request as it came in."""

    __slots__ = ("client_id", "id", "left", "policy", "scope")

    def __init__(self, scope: dict[str, Any], id: str, policy: CompiledPolicy | None) -> None:
        self.scope = scope
        self.id = id
        self.policy = policy
        self.left = False
        sent = self.header(b"x-request-id")
        self.client_id = sent.decode("ascii") if 0 < len(sent) <= 128 and _printable(sent) else id

    def header(self, name: bytes) -> bytes:
        for key, value in self.scope["headers"]:
            if key == name:
                return bytes(value)
        return b""

    def headers(self, served_by: str, attempts: int, mark: Mark | None = None) -> Headers:
        version = "none" if self.policy is None else str(self.policy.version)
        return answer_headers(
            request_id=self.client_id, served_by=served_by, attempts=attempts, policy=version, mark=mark
        )

    def leaves(self, task: asyncio.Task[Any]) -> Any:
        def left() -> None:
            self.left = True
            task.cancel()

        return left


def _printable(value: bytes) -> bool:
    return all(0x21 <= byte <= 0x7E for byte in value)


def _authenticate(policy: CompiledPolicy, authorization: bytes) -> CustomerPolicy:
    scheme, _, key = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not key.strip():
        raise RequestError(
            401,
            "No API key: send it as `Authorization: Bearer KEY` (the OpenAI SDK's `api_key`).",
            code="missing_api_key",
        )
    customer = policy.authenticate(key.strip(), today_utc())
    if customer is None:
        raise RequestError(
            401, "Incorrect API key: no customer of this gateway has it, or it has expired.", code="invalid_api_key"
        )
    return customer


def _no_such_model(model: str) -> RequestError:
    # The very same answer whether nobody has this adapter or another customer does.
    return RequestError(
        404,
        f"The model `{model}` does not exist or you do not have access to it. GET /v1/models lists yours.",
        param="model",
        code="model_not_found",
    )


def _models(policy: CompiledPolicy, customer: CustomerPolicy, path: str) -> bytes:
    if path == MODELS:
        return adapters_list(policy, customer)
    model = path.removeprefix(MODELS + "/")
    if model not in customer.adapters:
        raise _no_such_model(model)
    return adapter_object(policy, customer, model)


def _asks_for_structure(request: Request) -> bool:
    """Whether fixed text would break the caller: it expects a tool call or JSON."""
    wanted = request.fields.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    return bool(request.fields.get("tools")) or kind in ("json_object", "json_schema")
