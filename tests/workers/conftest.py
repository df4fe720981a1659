"""Two boxes that all tests of this folder share, and gateways of several workers before them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.served import ADAPTER, KEY, Served
from tests.support.processes import Process, Processes, Simulator
from tests.support.raw_client import RawClient, Recording

TOKEN = "an-admin-token"
ENV = {"FAILSOFT_ADMIN_TOKEN": TOKEN}

Boxes = dict[str, Simulator]


class Several:
    """A gateway of several workers."""

    def __init__(self, processes: Processes, process: Process, url: str) -> None:
        self._processes = processes
        self.process = process
        self.url = url
        self.client = RawClient(url, key=KEY)
        self.admin = RawClient(url, key=TOKEN)

    async def status(self) -> dict[str, Any]:
        """`/admin/status`."""
        answer = await self.admin.ask("/admin/status")
        assert answer.status == 200, answer.body
        return dict(answer.json())

    async def box(self, name: str) -> dict[str, Any]:
        """One box of it."""
        return next(box for box in (await self.status())["boxes"] if box["name"] == name)

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """The fields of all events of one kind."""
        found = (await self.admin.ask("/admin/events")).json()["events"]
        return [event["fields"] for event in found if event["kind"] == kind]

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the series of a metric that have these labels."""
        lines = (await self.admin.ask("/metrics")).body.decode().splitlines()
        of_name = [line for line in lines if line.partition("{")[0].partition(" ")[0] == name]
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(line.rpartition(" ")[2]) for line in of_name if all(label in line for label in wanted))

    async def until(self, condition: Any, *, within_s: float = 30.0) -> Any:
        """Wait for an asynchronous ``condition``."""
        async with asyncio.timeout(within_s):
            while not (value := await condition()):  # noqa: ASYNC110  # another process sets no event
                await asyncio.sleep(0.02)
            return value

    async def crowd(self, count: int, adapter: str = ADAPTER, **fields: Any) -> list[Recording]:
        """So many requests at the same time, each over a connection of its own."""
        return list(await asyncio.gather(*(self.client.chat(adapter, **fields) for _ in range(count))))

    async def failsoft(self, *arguments: str) -> tuple[int, str]:
        """Run a command that asks this gateway."""
        command = [sys.executable, "-m", "gateway.cli", *arguments]
        env = {"FAILSOFT_URL": self.url, **ENV}
        process = self._processes.command(command, name=f"failsoft {arguments[0]}", env=env)
        return await process.ended(within_s=30.0), process.output


@pytest.fixture(scope="module")
def shared_boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    """Boxes a and b."""
    with Processes(tmp_path_factory.mktemp("boxes")) as processes:
        boxes = {name: processes.box(name=name, adapters=[ADAPTER], tokens=12) for name in ("a", "b")}
        for box in boxes.values():
            box.wait_ready()
        yield boxes


@pytest.fixture
def boxes(shared_boxes: Boxes) -> Iterator[Boxes]:
    """Healthy, and with no record of earlier tests."""
    for box in shared_boxes.values():
        if not box.running:
            box.start()
            box.wait_ready()
        box.admin.heal()
        box.admin.forget()
    yield shared_boxes
    for box in shared_boxes.values():
        if box.running:
            box.admin.heal()


@pytest.fixture
def served(processes: Processes, tmp_path: Path, boxes: Boxes) -> Served:
    """The policies, with both boxes."""
    return Served(processes, tmp_path, boxes["a"].url, boxes["b"].url)


@pytest.fixture
async def gateway(processes: Processes, served: Served) -> Several:
    """Two workers, both ready."""
    process, url = await served.up("--workers", "2", "--drain", "20", env=ENV)
    return Several(processes, process, url)
