"""Gateways on one Redis: each counts on its share of the boxes' slots, and says so."""

from __future__ import annotations

from pathlib import Path

from tests.cli.served import Served
from tests.faults.store_process import StoreProcess
from tests.support.processes import Processes
from tests.workers.conftest import ENV, Boxes, Several


async def test_two_gateways_share_the_slots_and_one_alone_has_all(
    processes: Processes, tmp_path: Path, boxes: Boxes, redis: StoreProcess
) -> None:
    gateways = []
    for name, workers in (("first", "2"), ("second", "1")):
        served = Served(processes, tmp_path / name, boxes["a"].url, boxes["b"].url)
        process, url = await served.up("--redis", redis.url, "--workers", workers, env=ENV)
        gateways.append(Several(processes, process, url))
    first, second = gateways

    async def shares(*gateways: Several, alive: int, slots: int) -> bool:
        found = [await gateway.status() for gateway in gateways]
        return all(
            status["replicas"]["alive"] == alive and {box["slots"]["of"] for box in status["boxes"]} == {slots}
            for status in found
        )

    await first.until(lambda: shares(first, second, alive=2, slots=4))
    for gateway in gateways:
        assert await gateway.metric("failsoft_replicas") == 2
        assert await gateway.metric("failsoft_box_slot_share", box="a") == 4
        assert "2 gateways live on this store" in gateway.process.output
    assert sorted([(await gateway.status())["replicas"]["rank"] for gateway in gateways]) == [0, 1]
    _, said = await first.failsoft("status")
    assert "one of 2 gateways on this store" in said
    assert "2 of 2 workers" in said

    second.process.kill()
    await first.until(lambda: shares(first, alive=1, slots=8), within_s=20)
    assert [event["alive"] for event in await first.events("replicas")] == [2, 1]

    # Redis away: the number stays.
    redis.process.kill()
    await first.until(lambda: _alarmed(first), within_s=20)
    assert await shares(first, alive=1, slots=8)


async def _alarmed(gateway: Several) -> bool:
    return any(alarm["kind"] == "policy_store_away" for alarm in (await gateway.status())["alarms"])
