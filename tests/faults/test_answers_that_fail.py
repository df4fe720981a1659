"""Boxes whose answers go wrong in every way that is known, one box of the two and both: nobody who asks is hurt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.faults.house import BUSY, House, Rule
from tests.faults.invariants import Weather

ONE: Final = ("box-b",)
"""The box that most of the crowd's adapters prefer, those without a fallback of their own among them."""
BOTH: Final = ("box-a", "box-b")

STREAMED: Final = '"stream": true'
"""What the body of a client's streamed request holds."""
ASKED: Final = "question"
"""What the body of a client's request holds, and that of a probe does not: a probe that waits out a silence of its own
would keep the next test waiting as well."""

ENGINE_DEAD: Final = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@dataclass(frozen=True)
class Case:
    """``number``: in the list of faults. ``reason``: what a degraded answer gives as its first failure.

    ``breaks_streams``: the fault comes after the first content, so that a stream may end in an error event.
    """

    number: int
    says: str
    rules: tuple[Rule, ...]
    reason: str = "backend_down"
    breaks_streams: bool = False


def case(number: int, says: str, fault: str, /, reason: str = "backend_down", *, late: bool = False, **p: Any) -> Case:
    """A case of one rule."""
    return Case(number, says, ({"fault": fault, **p},), reason, late)


def engine_died(*, after_chunks: int) -> tuple[Rule, ...]:
    """As vLLM's server words it when its engine process was killed: streams and plain requests hear it differently."""
    return (
        {"fault": "error_frame_mid", "contains": STREAMED, "message": ENGINE_DEAD, "after_chunks": after_chunks},
        {"fault": "status", "status": 500, "message": ENGINE_DEAD},
    )


CASES: Final = (
    Case(2, "the engine died and its server says so", engine_died(after_chunks=0)),
    Case(2, "the engine dies under running streams", engine_died(after_chunks=4), breaks_streams=True),
    case(4, "the engine hangs behind a healthy server", "freeze", "ttft_budget", healthy=True),
    case(6, "answers end in abort at once", "abort", after_chunks=0),
    case(6, "answers end in abort half-way", "abort", late=True),
    case(10, "connections are refused", "refuse"),
    case(13, "connections are reset before the headers", "reset_before_headers"),
    case(13, "connections close before the headers", "close_before_headers"),
    case(14, "connections are reset behind the headers", "reset_after_headers"),
    case(14, "silence follows the role", "role_only_then_silence", "ttft_budget", contains=ASKED),
    case(14, "only keep-alive comments come", "keepalive_comments_then_silence", "ttft_budget", contains=ASKED),
    case(15, "connections are reset half-way", "reset_mid_stream", late=True),
    case(16, "the answer drips from its start", "drip", "ttft_budget", contains=ASKED),
    case(16, "the answer drips from its middle", "drip", "ttft_budget", late=True, after_chunks=4),
    case(17, "the answer stalls half-way", "stall", "ttft_budget", late=True, seconds=None),
    case(21, "answers end cleanly without a finish", "truncate", late=True),
    case(21, "answers end before any content", "truncate", after_chunks=1),
    case(21, "the connection ends in order, the answer does not", "truncate", late=True, close=True),
    case(21, "[DONE] comes without a finish", "done_without_finish", late=True),
    case(22, "the first frame is malformed", "malformed_frame", after_chunks=0),
    case(22, "a later frame is malformed", "malformed_frame", late=True),
    case(22, "the text is not UTF-8", "invalid_utf8", late=True),
    case(22, "the answer is no HTTP", "garbage"),
    case(22, "the answer is a web page", "html_200"),
    case(22, "the answer is empty", "empty_200"),
    case(22, "the answer is shorter than its length says", "wrong_content_length"),
    case(22, "the answer is longer than its length says", "wrong_content_length", by=-10),
    case(22, "the header block has no end", "huge_headers"),
    case(23, "an error comes as the first frame", "error_frame_first"),
    case(24, "an error comes as a later frame, then [DONE]", "error_frame_mid", late=True),
    case(25, "the first frame is huge", "huge_frame", bytes=5_000_000),
    case(25, "a later frame is huge", "huge_frame", late=True, bytes=5_000_000, after_chunks=4),
    case(28, "the queue is full", "status", "backend_saturated", status=503, message=BUSY),
    case(28, "a frame says the queue is full", "error_frame_first", "backend_saturated", status=503, message=BUSY),
    case(28, "requests are limited", "status", "backend_saturated", status=429),
    case(0, "the status is 500", "status", status=500),
    case(0, "the status is 502, from a proxy in between", "status", status=502),
    case(0, "the gateway's own key is refused", "status", status=401),
)  # fmt: skip


def names(cases: tuple[Case, ...]) -> list[str]:
    """As the report has them."""
    return [f"case {one.number}: {one.says}" if one.number else one.says for one in cases]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
async def test_nobody_is_hurt_by(two_houses: tuple[House, House], case: Case) -> None:
    """In one house one box fails, and nobody notices; in another both do, and each policy's fallback answers."""
    await asyncio.gather(at_one_box(two_houses[0], case), at_both_boxes(two_houses[1], case))


async def at_one_box(house: House, case: Case) -> None:
    with house.broken(ONE, *case.rules):
        asked = await house.crowd()
        await house.judge(asked, Weather(boxes=frozenset(ONE), breaks_streams=case.breaks_streams))


async def at_both_boxes(house: House, case: Case) -> None:
    reasons = frozenset({case.reason, "circuit_open"})
    weather = Weather(boxes=frozenset(BOTH), reasons=reasons, breaks_streams=case.breaks_streams)
    with house.broken(BOTH, *case.rules):
        history = await house.judge(await house.crowd(), weather)
    assert case.breaks_streams or any(asked.degraded == case.reason for asked in history.asked)
