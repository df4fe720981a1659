"""Homes by measured traffic, from requests to what `failsoft status` and `failsoft explain` say of them."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.cli.served import KEY, Served
from tests.support.processes import Processes
from tests.support.raw_client import RawClient

TOKEN = "an-admin-token"
ADAPTERS = [f"acme_v{number}" for number in range(4)]
REQUESTS = 240
PLACED_WITHIN_S = 30.0


async def test_who_asks_sees_homes_by_rendezvous_then_by_what_was_measured(
    processes: Processes, tmp_path: Path
) -> None:
    boxes = [processes.box(name=name, adapters=ADAPTERS, tokens=2) for name in ("a", "b")]
    for box in boxes:
        box.wait_ready()
    served = Served(processes, tmp_path, *(box.url for box in boxes))
    served.customer(adapters=ADAPTERS)
    _, url = await served.up(env={"FAILSOFT_ADMIN_TOKEN": TOKEN})

    async def failsoft(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "gateway.cli", *arguments, "--json"]
        env = {"FAILSOFT_URL": url, "FAILSOFT_ADMIN_TOKEN": TOKEN}
        process = processes.command(command, name=f"failsoft {arguments[0]}", env=env)
        assert await process.ended(within_s=30.0) in (0, 1), process.output
        found: dict[str, Any] = json.loads(process.output)
        return found

    # Whoever only looks is no traffic: else these would be enough for adapters to be placed.
    admin = RawClient(url, key=TOKEN)
    for _ in range(REQUESTS):
        plan = (await admin.ask(f"/admin/explain?customer=acme&model={ADAPTERS[0]}")).json()
    assert plan["homes"]["placed_by"] == "rendezvous"
    status = await failsoft("status")
    assert (status["fleets"][0]["placed_by"], status["fleets"][0]["requests_seen"]) == ("rendezvous", 0)
    assert sorted(one["adapter"] for box in status["boxes"] for one in box["home_of"]) == ADAPTERS

    client = RawClient(url, key=KEY)
    for number in range(REQUESTS):
        answer = await client.chat(ADAPTERS[number % len(ADAPTERS)])
        assert answer.status == 200
    async with asyncio.timeout(PLACED_WITHIN_S):
        # Another process's state has no event here.
        while (status := (await admin.ask("/admin/status")).json())["fleets"][0]["placed_by"] != "rates":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    (fleet,) = status["fleets"]
    assert fleet["requests_per_s"] > 0
    assert fleet["predicted_swaps_per_s"] == 0, "there is a slot for everybody"
    living = {box["name"]: {one["adapter"] for one in box["home_of"]} for box in status["boxes"]}
    assert set().union(*living.values()) == set(ADAPTERS)

    plan = await failsoft("explain", "--customer", "acme", "--model", ADAPTERS[0])
    assert plan["homes"]["placed_by"] == "rates"
    assert set(plan["homes"]["boxes"]) == {name for name, there in living.items() if ADAPTERS[0] in there}
    metrics = (await RawClient(url).ask("/metrics")).body.decode()
    assert 'failsoft_fleet_predicted_lora_swaps_per_second{fleet="main"} 0.0' in metrics
