"""A network between gateway and boxes that delays, slices, loses and cuts what passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.cast import PATIENT, write_policies
from tests.faults.house import House
from tests.faults.invariants import Weather
from tests.support.eventually import eventually
from tests.support.fault_proxy import (
    Bandwidth,
    FaultProxy,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)

ONE = Weather(boxes=frozenset({"box-b"}), breaks_streams=True)


@dataclass
class Wired:
    """A house whose gateway reaches each box through a proxy of its own."""

    house: House
    proxies: dict[str, FaultProxy]


@pytest.fixture
async def wired(house: House, tmp_path: Path) -> AsyncIterator[Wired]:
    proxies = {name: FaultProxy(box.url) for name, box in house.boxes.items()}
    for proxy in proxies.values():
        await proxy.up()
    entries = {name: {**entry, "url": proxies[name].url} for name, entry in house.box_entries.items()}
    await house.apply(write_policies(tmp_path / "policies", {"main": entries}, house.provider.url))
    yield Wired(house, proxies)
    await house.apply(house.policies)
    for proxy in proxies.values():
        await proxy.close()


@pytest.mark.parametrize(
    "toxics",
    [(Latency(0.05, jitter_s=0.03),), (Slicer(size=7),), (Bandwidth(200_000),), (SlowClose(0.3),)],
    ids=["it is slow", "it delivers seven bytes at a time", "it is narrow", "it is late to close"],
)
async def test_nobody_notices_a_network_of_which(wired: Wired, toxics: tuple[Toxic, ...]) -> None:
    for proxy in wired.proxies.values():
        proxy.poison(*toxics)
    await wired.house.judge(await wired.house.crowd(), Weather())


@pytest.mark.parametrize(
    "toxics",
    [(LimitData(900),), (LimitData(60),), (ResetPeer(0.02),), (ResetPeer(),), (Timeout(),), (Timeout(0.1),)],
    ids=[
        "ends connections in mid-answer",
        "ends connections in mid-header",
        "resets connections in mid-answer",
        "resets connections at once",
        "swallows everything",
        "swallows everything and closes",
    ],
)
async def test_nobody_is_hurt_by_a_network_that_before_one_box(wired: Wired, toxics: tuple[Toxic, ...]) -> None:
    wired.proxies["box-b"].poison(*toxics)
    await wired.house.judge(await wired.house.crowd(), ONE)


async def test_case_12_a_peer_that_vanishes_in_mid_stream_leaves_no_stream_short(wired: Wired) -> None:
    house, proxy = wired.house, wired.proxies["box-b"]
    box = house.boxes["box-b"].admin
    box.fault("stall", seconds=0.3, adapter="umbrella_v1")
    asking = asyncio.get_running_loop().create_task(house.crowd())
    await eventually(lambda: any(request["events"] >= 4 for request in box.requests(model="umbrella_v1")))
    proxy.poison(Timeout())
    proxy.poison(Timeout(), direction="upstream")
    asked = await asking
    proxy.heal()
    blind = Weather(boxes=ONE.boxes, breaks_streams=True, blind=frozenset({"box-b"}))
    await house.judge(asked, blind)


async def test_a_box_whose_network_comes_back_answers_again(wired: Wired) -> None:
    await wired.proxies["box-b"].down()
    await wired.house.judge(await wired.house.crowd(), ONE)
    await wired.proxies["box-b"].up()
    await wired.house.recovered()
    history = await wired.house.judge(await wired.house.crowd(customers=(PATIENT,)), Weather())
    assert {asked.served_by for asked in history.asked} == {"box:box-a", "box:box-b"}
