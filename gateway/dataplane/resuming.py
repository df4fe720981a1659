"""Has an answer that broke off go on at another box. Thin I/O: what is asked and told is decided elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from gateway.clock import Clock
from gateway.dataplane.attempt import ERROR_LIMIT, Answer, Question, asked, request_id
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.request import Request
from gateway.dataplane.resumption import Resumption, limited
from gateway.dataplane.said import Said, Spoken
from gateway.dataplane.splice import Splice
from gateway.dataplane.stream_guard import StreamGuard
from gateway.errors import OtherAnswer, UpstreamError
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.fleet.obstacle import Obstacle
from gateway.fleet.request_head import request_head
from gateway.policy.compiled import CustomerPolicy
from gateway.upstream.exchange import Exchange

COUNT_S: Final = 0.5
"""What the box may take to count the tokens of what was said."""


class Resumer:
    """Of all streams of one process."""

    def __init__(self, fleets: Fleets) -> None:
        self._fleets = fleets

    async def go_on(
        self,
        customer: CustomerPolicy,
        request: Request,
        broken: Answer,
        said: Said,
        spoken: Spoken,
        found: Resumption,
        clock: Clock,
    ) -> Answer | str:
        """The rest of ``broken``, asked for as ``found``, from another box; or why there is none. ``said``: what it has
        told, put together in ``spoken``."""
        adapter = broken.attempt.adapter or request.adapter
        ended = broken.guard.ended if isinstance(broken.guard, StreamGuard) else None
        why = "no other box may be asked"
        for box, forced in self._others(customer, adapter, broken, clock()):
            permit = box.admit(adapter, clock(), streamed=True, force=forced)
            if permit is None:
                continue
            try:
                said_tokens = await _count(box, adapter, said, found.echoed, clock) if found.way == "continued" else 0
            except BaseException:
                permit.released()
                raise
            fields, spent = limited(found, said_tokens, ended=ended is not None)
            # A copy: what this box says counts only once it was handed on.
            told = said.copy()
            splice = Splice(found, told, spoken, said_tokens=said_tokens, spent=spent, ended=ended)
            attempt = replace(
                broken.attempt,
                box=box,
                served_by=f"box:{box.name}",
                number=broken.attempt.number + 1,
                until=clock() + customer.ttft_budget_s,
            )
            question = _question(box, request, fields | {"model": adapter}, attempt, splice, customer, clock)
            try:
                rest = await asked(question, request, attempt, permit, clock)
            except UpstreamError as failure:
                why = f"box {box.name}: {failure.for_watchers}"
                if isinstance(failure, OtherAnswer):
                    # It says something else: so would the next one.
                    break
                continue
            rest.said, rest.splice = told, splice
            return rest
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


def _question(
    box: Box,
    request: Request,
    fields: dict[str, Any],
    attempt: Attempt,
    splice: Splice,
    customer: CustomerPolicy,
    clock: Clock,
) -> Question:
    """What ``box`` is asked, and how its answer is made to fit."""
    guard = StreamGuard(1, reshape=splice.frame, strip_usage=not request.include_usage, strict=True)
    events = 0

    def heard(exchange: Exchange) -> None:
        """While it says again what was said, it is to be let speak."""
        nonlocal events
        if guard.events != events:
            events = guard.events
            exchange.until = max(attempt.until, clock() + customer.stall_timeout_s)

    head = box.head(request.path) + request_id(request, attempt)
    body = msgspec.json.encode(fields)
    return Question(box.pool, head, body, box.base_model, None, box.pending, guard=guard, heard=heard)


async def _count(box: Box, model: str, said: Said, echoed: str, clock: Clock) -> int:
    """How many tokens were said behind ``echoed``: by the box's own count, else by the events that brought them."""
    text = said.text[len(echoed) :]
    body = msgspec.json.encode({"model": model, "prompt": text, "add_special_tokens": False})
    head = request_head(
        "POST", box.pool.origin, "/tokenize", api_key=box.spec.api_key, header=b"content-type: application/json"
    )
    count: Any = None
    # An engine that does not count is asked all the same: at worst the answer is some tokens longer.
    with contextlib.suppress(UpstreamError, msgspec.DecodeError, UnicodeDecodeError):
        exchange = await box.pool.exchange(head, body, clock() + COUNT_S)
        try:
            counted = msgspec.json.decode(await exchange.read_all(ERROR_LIMIT))
        finally:
            exchange.close()
        if exchange.status == 200 and isinstance(counted, dict):
            count = counted.get("count")
    return count if isinstance(count, int) else len(said.pieces) - bool(echoed)
