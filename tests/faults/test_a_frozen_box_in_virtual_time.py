"""One of two boxes freezes in mid-traffic, in virtual time: nobody waits longer than the budget and the fallback."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from backend.planner.virtual_loop import VirtualLoop
from bench.frozen_box import HOSTED_TTFT_S, Result, Scenario, run

CALM = Scenario(seconds=18.0, freeze_at_s=6.0, requests_per_s=3.0)
"""As much as one box can do with its slots."""
BUSY = replace(CALM, requests_per_s=10.0)
"""The design's workload on two boxes, of which one is left."""
EJECTED_WITHIN_S = 10.0
"""Case 4 of the faults."""


def hung_at(result: Result) -> int:
    """Requests that were sent to the frozen box and given up there."""
    return sum(one.attempts > 1 for one in result.after(result.scenario.freeze_at_s - 1))


@pytest.mark.parametrize("engine_only", [False, True], ids=["all of it", "its engine"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nobody_waits_longer_than_the_budget_and_the_fallback(seed: int, engine_only: bool) -> None:
    result = run(replace(CALM, seed=seed, engine_only=engine_only))
    assert result.late == []
    assert [one for one in result.asked if one.status != 200] == []
    assert hung_at(result), "some of them met the frozen box"
    assert result.ejected_s is not None
    assert result.ejected_s <= EJECTED_WITHIN_S
    # From then on nobody finds out about it by waiting.
    later = result.after(CALM.freeze_at_s + result.ejected_s)
    assert {one.served_by for one in later} <= {"box:box-a", "box:box-b", "provider:hosted"} - {f"box:{result.frozen}"}
    assert max(one.waited_s for one in later) < CALM.ttft_budget_s


def test_nobody_waits_longer_where_the_other_box_is_too_busy_for_all() -> None:
    assert run(BUSY).late == []


def test_where_the_other_box_is_too_busy_nobody_waits_longer_than_two_budgets_and_the_fallback() -> None:
    result = run(BUSY)
    assert [one for one in result.asked if one.status != 200] == []
    assert result.longest.waited_s <= 2 * BUSY.ttft_budget_s + HOSTED_TTFT_S + 0.01


@pytest.mark.parametrize("engine_only", [False, True], ids=["all of it", "its engine"])
def test_a_box_that_thaws_is_asked_again_and_its_slow_start_costs_nobody_the_budget(engine_only: bool) -> None:
    result = run(replace(CALM, seconds=24.0, frozen_s=6.0, engine_only=engine_only))
    assert result.back_s is not None
    assert result.back_s <= 5.0
    thawed_s = CALM.freeze_at_s + 6.0 + result.back_s
    later = result.after(thawed_s)
    assert f"box:{result.frozen}" in {one.served_by for one in later}
    assert max(one.waited_s for one in later) < CALM.ttft_budget_s


def test_the_same_seed_gives_the_same_waits() -> None:
    short = replace(CALM, seconds=10.0)
    assert run(short).asked == run(short).asked


def test_virtual_time_passes_without_anybody_waiting_for_it_and_stands_still_while_there_is_work() -> None:
    async def sleep_for_a_day() -> list[float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        sum(range(100_000))
        worked = loop.time() - began
        await asyncio.sleep(86_400.0)
        return [worked, loop.time() - began]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(sleep_for_a_day()) == [pytest.approx(0.0, abs=1e-6), pytest.approx(86_400.0)]


def test_a_virtual_loop_says_when_nothing_is_left_that_could_happen() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with (
        pytest.raises(RuntimeError, match="nothing is left that could happen"),
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        runner.run(wait_for_ever())


def test_connections_in_memory_carry_bytes_both_ways_and_say_when_the_other_side_has_left() -> None:
    async def talk() -> tuple[bytes, bytes, str]:
        loop = asyncio.get_running_loop()

        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()

        sock = socket.create_server(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        server = await asyncio.start_server(shout, sock=sock)
        server.close()
        try:
            await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError as error:
            refused = str(error)
        sock = socket.create_server(("127.0.0.1", 0))
        async with asyncio.timeout(1):
            listening = await asyncio.start_server(shout, sock=sock)
            reader, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
            writer.write(b"hello\n")
            line, end = await reader.readline(), await reader.read()
            writer.close()
            listening.close()
        assert loop.time() == pytest.approx(1000.0)
        return line, end, refused

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        line, end, refused = runner.run(talk())
    assert (line, end) == (b"HELLO\n", b"")
    assert "nobody listens" in refused
