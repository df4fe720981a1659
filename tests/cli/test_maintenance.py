"""A box is taken off for maintenance under traffic, by command, and no request fails."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.served import ADAPTER, KEY, Served
from tests.support.checker import check_stream
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient

TOKEN = "an-admin-token"


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Simulator]]:
    with Processes(tmp_path_factory.mktemp("boxes")) as processes:
        boxes = {name: processes.box(name=name, adapters=[ADAPTER], tokens=12) for name in ("a", "b")}
        for box in boxes.values():
            box.wait_ready()
        yield boxes


async def test_a_box_is_drained_under_traffic_and_no_request_fails(
    processes: Processes, tmp_path: Path, boxes: dict[str, Simulator]
) -> None:
    served = Served(processes, tmp_path, boxes["a"].url, boxes["b"].url)
    _, url = await served.up(env={"FAILSOFT_ADMIN_TOKEN": TOKEN})
    client = RawClient(url, key=KEY)

    async def failsoft(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "gateway.cli", *arguments]
        env = {"FAILSOFT_URL": url, "FAILSOFT_ADMIN_TOKEN": TOKEN}
        process = processes.command(command, name=f"failsoft {arguments[0]}", env=env)
        return await process.ended(within_s=90.0), process.output

    first = await client.chat(ADAPTER)
    home = first.headers["x-failsoft-served-by"].removeprefix("box:")
    other = "b" if home == "a" else "a"
    # Longer than a command takes to start beside ten other processes.
    boxes[home].admin.fault("stall", seconds=6.0, adapter=ADAPTER, count=1)
    running = asyncio.ensure_future(client.chat(ADAPTER))  # noqa: TID251
    await eventually(lambda: boxes[home].admin.rules()[0]["fired"])

    code, output = await failsoft("drain", home, "--wait", "--timeout", "60s")
    assert code == 0, output
    assert f"waiting for {home}: 1 request is still in flight" in output
    assert f"{home} is drained on this gateway: nothing new goes there, nothing is in flight there." in output
    answer = await running
    assert check_stream(answer).whole
    assert answer.headers["x-failsoft-served-by"] == f"box:{home}"

    served.write("defaults.yaml", {"defaults": {"on_broken_stream": "error", "fallback": []}})
    async with asyncio.timeout(10):
        while (meanwhile := await client.chat(ADAPTER)).headers["x-failsoft-policy"] == "1":
            assert check_stream(meanwhile).whole
    assert meanwhile.headers["x-failsoft-served-by"] == f"box:{other}"

    asking = ("explain", "--customer", "acme", "--model", ADAPTER)
    code, output = await failsoft(*asking, "--json")
    assert code == 0, output
    plan = json.loads(output)
    assert [attempt["served_by"] for attempt in plan["attempts"]] == [f"box:{other}"]
    assert f"box:{home}: an operator has drained it on this gateway" in plan["left_out"]

    code, output = await failsoft("undrain", home)
    assert code == 0, output
    assert (await client.chat(ADAPTER)).headers["x-failsoft-served-by"] == f"box:{home}"
    code, output = await failsoft(*asking)
    assert (code, f"now: box:{home}" in output) == (0, True), output
