"""A box that is full is passed over before a request has waited there, and is asked again when it no longer is."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.policy.compiled import StaticStep
from tests.dataplane.conftest import ServePlane
from tests.dataplane.plane import ADAPTER, Plane
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording

LATER = "We are in reduced mode."
BUDGET_S = 2.0
PACE = {
    "tokens": 100,
    "max_num_seqs": 2,
    "decode_ms": 20,
    "decode_ms_per_seq": 0,
    "decode_ms_per_adapter": 0,
    "swap_ms": 0,
}


@pytest.fixture
async def small(processes: Processes) -> Simulator:
    """A box that runs two requests at once, each for as many tokens as it is asked for at 50 a second."""
    box = processes.box(adapters=[ADAPTER], **PACE)
    await box.ready()
    return box


async def ask(plane: Plane) -> Recording:
    return await plane.raw().chat(ADAPTER, max_tokens=2, timeout_s=30)


async def until_answered(plane: Plane, *, degraded: str | None, within_s: float = 20.0) -> Recording:
    until = time.monotonic() + within_s
    while True:
        answer = await ask(plane)
        if answer.headers.get("x-failsoft-degraded") == degraded:
            return answer
        assert time.monotonic() < until, f"not {degraded} within {within_s} s: {answer.headers}"
        await asyncio.sleep(0.05)


async def test_who_would_wait_too_long_is_answered_at_once_by_another_and_comes_back_when_the_queue_is_gone(
    serve: ServePlane, small: Simulator
) -> None:
    plane = await serve([small], StaticStep(LATER), options={"watching": True}, ttft_budget_s=BUDGET_S)
    await until_answered(plane, degraded=None)
    # Others fill the box: twenty requests of two seconds each, two at a time.
    others = [
        asyncio.get_running_loop().create_task(RawClient(small.url).chat(ADAPTER, max_tokens=100, timeout_s=60))
        for _ in range(20)
    ]
    try:
        spilled = await until_answered(plane, degraded="backend_saturated")
        assert spilled.headers["x-failsoft-served-by"] == "static"
        assert spilled.headers["x-failsoft-attempts"] == "1", "the box was not asked"
        assert spilled.head_s is not None
        assert spilled.head_s < BUDGET_S, "and nobody waited for it"
        patient = plane.raw().chat(ADAPTER, max_tokens=2, headers={"x-failsoft-fallback": "never"}, timeout_s=60)
        waiting = asyncio.get_running_loop().create_task(patient)
    finally:
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    assert (await waiting).status == 200, "who wants the adapter or an error waits"
    await until_answered(plane, degraded=None)
