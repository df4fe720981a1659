"""Case 25, by its memory: what an upstream sends without end is given up, not kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.cast import ACME, INITECH
from tests.faults.house import House
from tests.faults.invariants import Weather

MB = 1_000_000
MOST_MORE_BYTES = 60 * MB
"""Six streams of 50 MB each come in at once: kept whole, they would be 300 MB."""

BOTH = frozenset({"box-a", "box-b"})


@pytest.mark.parametrize("after_chunks", [1, 4], ids=["the first frame", "a later frame"])
async def test_case_25_a_frame_of_50_mb_leaves_memory_bounded(house: House, after_chunks: int) -> None:
    rule: dict[str, Any] = {"fault": "huge_frame", "bytes": 50 * MB, "after_chunks": after_chunks}
    before = house.gateway.memory_bytes()
    targets = [*BOTH, "hosted"] if after_chunks == 1 else BOTH
    with house.broken(targets, rule):
        asked = await house.streams(6, customers=(ACME, INITECH))
    assert house.gateway.memory_bytes() - before < MOST_MORE_BYTES
    reasons = frozenset({"backend_down", "circuit_open"})
    await house.judge(asked, Weather(boxes=BOTH, provider=True, reasons=reasons, breaks_streams=True))


async def test_case_25_a_plain_answer_past_all_measure_is_given_up(house: House) -> None:
    before = house.gateway.memory_bytes()
    with house.broken(BOTH, {"fault": "huge_frame", "bytes": 200 * MB}):
        asked = [await house.ask(ACME, stream=False)]
    # One answer at a time may be as large as 64 MiB, in pieces and put together.
    assert house.gateway.memory_bytes() - before < 150 * MB
    reasons = frozenset({"backend_down", "circuit_open"})
    await house.judge(asked, Weather(boxes=BOTH, reasons=reasons))
