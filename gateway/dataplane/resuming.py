"""Has an answer that broke off go on at another box. Thin I/O: what is asked and told is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from gateway.clock import Clock
from gateway.dataplane.attempt import Answer
from gateway.dataplane.request import Request
from gateway.dataplane.resumption import Refused, Resumption, encoded, limited, resumption
from gateway.dataplane.said import Said
from gateway.dataplane.splice import Splice
from gateway.dataplane.stream_guard import StreamGuard
from gateway.errors import ProtocolError, UpstreamError
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.fleet.obstacle import Obstacle
from gateway.fleet.permit import Permit
from gateway.fleet.request_head import request_head
from gateway.policy.compiled import CustomerPolicy
from gateway.upstream.refusal import read_refusal

MAX_BREAKS: Final = 2
"""Of one answer. One that breaks at every box may be what breaks them (design: a request meets at most two)."""

COUNT_S: Final = 0.5
"""What the box may take to count the tokens of what was said."""

ERROR_LIMIT: Final = 1 << 20
"""Bytes of an error's body."""


class Resumer:
    """Of all streams of one process."""

    def __init__(self, fleets: Fleets) -> None:
        self._fleets = fleets

    async def go_on(self, customer: CustomerPolicy, request: Request, broken: Answer, clock: Clock) -> Answer | str:
        """The rest of ``broken``, a stream that is kept in mind, from another box; or why there is none."""
        said = broken.said
        if said is None or broken.guard is None:
            raise TypeError("nobody has kept what it said")
        if broken.guard.finished:
            return "it had come to its end"
        if broken.breaks >= MAX_BREAKS:
            return f"it broke {broken.breaks + 1} times"
        spoken = said.spoken()
        found = resumption(request.endpoint, request.fields_with_usage, request.choices, spoken)
        if isinstance(found, Refused):
            return found.why
        adapter = broken.attempt.adapter or request.adapter
        why = "no other box may be asked"
        for box, forced in self._others(customer, adapter, broken, clock()):
            permit = box.admit(adapter, clock(), streamed=True, force=forced)
            if permit is None:
                continue
            try:
                answer = await _ask(box, permit, request, found, said, broken, customer, clock)
            except UpstreamError as failure:
                permit.failed(failure, clock())
                why = f"box {box.name}: {failure.for_watchers}"
                if isinstance(failure, ProtocolError):
                    # It says something else: so would the next one.
                    break
                continue
            except BaseException:
                permit.released()
                raise
            permit.succeeded(clock())
            return answer
        return why

    def _others(self, customer: CustomerPolicy, adapter: str, broken: Answer, now: float) -> Sequence[tuple[Box, bool]]:
        """The boxes to ask, those with room first, each with whether its breaker is to be overruled: that of one that
        fails fast, as the last resort. A half-open one lets its trial through anyway.
        """
        boxes = [
            box
            for box in self._fleets.boxes_for(customer.fleet.name, adapter)
            if box.name not in broken.broke_at and box is not broken.attempt.box
        ]
        budget_s = customer.ttft_budget_s
        ready = sorted(
            (box for box in boxes if box.obstacle(adapter, now) is None),
            key=lambda box: box.saturated(adapter, budget_s, now),
        )
        shut = [box for box in boxes if box.obstacle(adapter, now) is Obstacle.CIRCUIT_OPEN and box.fails_fast]
        return [*((box, False) for box in ready), *((box, True) for box in shut)]


async def _ask(
    box: Box,
    permit: Permit,
    request: Request,
    found: Resumption,
    said: Said,
    broken: Answer,
    customer: CustomerPolicy,
    clock: Clock,
) -> Answer:
    """The answer from ``box``, once it has said something new. Raises UpstreamError."""
    said_tokens = await _count(box, permit.adapter or request.adapter, said, clock) if found.way == "continued" else 0
    fields, spent = limited(found, said_tokens)
    # A copy: what this box says counts only once it was handed on.
    said = said.copy()
    splice = Splice(found, said, said_tokens=said_tokens, spent=spent)
    guard = StreamGuard(1, reshape=splice.frame, strip_usage=not request.include_usage, strict=True)
    attempt = replace(broken.attempt, box=box, served_by=f"box:{box.name}", permit=permit)
    number = broken.attempt.number + broken.breaks + 1
    head = box.head(request.path) + b"x-request-id: %b-%d\r\n" % (request.id.encode("latin-1"), number)
    until = clock() + customer.ttft_budget_s
    exchange = await box.pool.exchange(
        head, encoded(fields, permit.adapter or request.adapter), until, pending=box.pending
    )
    try:
        if exchange.status != 200:
            raise await read_refusal(exchange, ERROR_LIMIT)
        if not (exchange.header(b"content-type") or b"").lower().startswith(b"text/event-stream"):
            raise ProtocolError("a stream was asked for")
        events = 0
        while not guard.committed and not guard.complete:
            data = await exchange.read()
            out = guard.feed(data) if data else guard.eof()
            if guard.error is not None:
                raise guard.error
            if guard.events != events:
                # While it says again what was said, it is to be let speak.
                events = guard.events
                exchange.until = max(until, clock() + customer.stall_timeout_s)
    except BaseException:
        exchange.close()
        raise
    box.pending.discard(exchange)
    return Answer(
        attempt,
        out,
        None,
        exchange,
        guard,
        permit,
        said=said,
        splice=splice,
        breaks=broken.breaks + 1,
        broke_at=broken.broke_at | {broken.attempt.served_by.removeprefix("box:")},
    )


async def _count(box: Box, model: str, said: Said, clock: Clock) -> int:
    """How many tokens were said: by the box's own count, else by the events that brought them."""
    body = msgspec.json.encode({"model": model, "prompt": said.text, "add_special_tokens": False})
    head = request_head(
        "POST", box.pool.origin, "/tokenize", api_key=box.spec.api_key, header=b"content-type: application/json"
    )
    try:
        exchange = await box.pool.exchange(head, body, clock() + COUNT_S)
        try:
            counted: Any = msgspec.json.decode(await exchange.read_all(ERROR_LIMIT))
            if exchange.status == 200 and isinstance(counted, dict) and isinstance(counted.get("count"), int):
                return int(counted["count"])
        finally:
            exchange.close()
    except (UpstreamError, msgspec.DecodeError, UnicodeDecodeError):
        # An engine that does not count is asked all the same: at worst the answer is some tokens longer.
        return len(said.pieces)
    return len(said.pieces)
