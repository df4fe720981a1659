"""The proxy breaks connections in each of its ways; without toxics it changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.checker import check_stream
from tests.support.eventually import eventually
from tests.support.fault_proxy import (
    Bandwidth,
    FaultProxy,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    SynBlackHole,
    Timeout,
)
from tests.support.processes import Simulator
from tests.support.raw_client import RawClient, Recording


@pytest.fixture
async def proxy(box: Simulator) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(box.url) as running:
        yield running


def ask(proxy: FaultProxy, *, timeout_s: float = 10.0) -> asyncio.Task[Recording]:
    return asyncio.get_running_loop().create_task(RawClient(proxy.url).chat("acme", timeout_s=timeout_s))


async def test_without_toxics_all_passes(proxy: FaultProxy) -> None:
    assert check_stream(await ask(proxy)).whole
    await eventually(lambda: proxy.open_connections == 0)


async def test_latency_delays(proxy: FaultProxy) -> None:
    proxy.poison(Latency(0.3), direction="upstream")
    answer = await ask(proxy)
    assert check_stream(answer).whole
    assert answer.head_s is not None
    assert answer.head_s >= 0.3


async def test_bandwidth_stretches(proxy: FaultProxy) -> None:
    proxy.poison(Bandwidth(10_000))
    answer = await ask(proxy)
    assert check_stream(answer).whole
    assert answer.ended_s >= len(answer.raw) / 10_000


async def test_slices_change_nothing_but_the_pieces(proxy: FaultProxy) -> None:
    proxy.poison(Slicer(7))
    assert check_stream(await ask(proxy)).whole


async def test_limited_data_ends_in_good_order(proxy: FaultProxy) -> None:
    proxy.poison(LimitData(900))
    answer = await ask(proxy)
    assert (len(answer.raw), answer.end) == (900, "truncated")


async def test_a_black_hole_swallows_until_it_is_healed(proxy: FaultProxy) -> None:
    proxy.poison(Timeout())
    assert (await ask(proxy, timeout_s=0.3)).end == "timeout"
    asked = ask(proxy)
    await eventually(lambda: proxy.accepted == 2)
    proxy.heal()
    assert check_stream(await asked).whole


async def test_a_black_hole_may_close(proxy: FaultProxy) -> None:
    proxy.poison(Timeout(0.1))
    assert (await ask(proxy)).end == "truncated"


async def test_both_sides_see_the_reset(proxy: FaultProxy, box: Simulator) -> None:
    box.admin.fault("stall", seconds=None)
    asked = ask(proxy)
    await eventually(lambda: box.admin.state()["running"])
    proxy.poison(ResetPeer())
    assert (await asked).end == "reset"
    (request,) = await eventually(lambda: [r for r in box.admin.requests() if not r["running"]])
    assert request["client_left"]


async def test_the_end_can_be_late(proxy: FaultProxy, box: Simulator) -> None:
    box.admin.fault("truncate", close=True)
    proxy.poison(SlowClose(0.4))
    answer = await ask(proxy)
    assert answer.end == "truncated"
    assert answer.longest_silence_s >= 0.3


async def test_down_refuses_and_resets_and_up_is_the_same_port(proxy: FaultProxy, box: Simulator) -> None:
    box.admin.fault("stall", seconds=None)
    asked = ask(proxy)
    await eventually(lambda: box.admin.state()["running"])
    url = proxy.url
    await proxy.down()
    assert (await asked).end == "reset"
    assert (await ask(proxy)).end == "refused"
    box.admin.heal()
    await proxy.up()
    assert proxy.url == url
    assert check_stream(await ask(proxy)).whole


async def test_an_upstream_that_is_away_resets(proxy: FaultProxy, box: Simulator) -> None:
    box.admin.fault("refuse")
    assert (await ask(proxy)).end == "reset"


async def test_connecting_to_a_syn_black_hole_hangs() -> None:
    with SynBlackHole() as hole, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await asyncio.open_connection("127.0.0.1", hole.port)
