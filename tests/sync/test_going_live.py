"""A gateway keeps the adapters on its boxes as policies name them, while clients keep asking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.cli.served import Served
from tests.faults.store_process import StoreProcess
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording
from tests.workers.conftest import ENV, Several

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
CHAT = "/v1/chat/completions"
V3, V4 = "acme_v3", "acme_v4"
AGENTS = 4


class House:
    """Two boxes with ``acme_v3``, and policies by which a gateway loads what they name."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes = processes
        self.boxes: dict[str, Simulator] = {
            name: processes.box(name=name, adapters=[V3], tokens=2, ttft_ms=1) for name in ("a", "b")
        }
        for box in self.boxes.values():
            box.wait_ready()
        self.served = Served(processes, folder, *(box.url for box in self.boxes.values()))
        self.sync(watch=True, grace="500ms", every="20s")
        self.names(V3)

    def sync(self, **keys: Any) -> None:
        boxes = {name: {"url": box.url} for name, box in self.boxes.items()}
        fleet = {"base_model": "base", "adapter_root": "/adapters", "boxes": boxes, "sync": keys}
        self.served.write("fleet.yaml", {"fleets": {"main": fleet}})

    def names(self, *adapters: str, alias: str | None = None) -> None:
        """Acme has ``adapters``, and its alias stands for the last of them unless said."""
        self.served.customer(adapters=list(adapters), aliases={"acme": alias or adapters[-1]})

    async def gateway(self, *options: str) -> Several:
        process, url = await self.served.up(*options, env=ENV)
        return Several(self.processes, process, url)

    def has(self, box: str) -> set[str]:
        models = httpx2.get(f"{self.boxes[box].url}/v1/models", trust_env=False).json()["data"]
        return {model["id"] for model in models if model["parent"] is not None}

    def both_have(self, *adapters: str) -> bool:
        return self.has("a") == self.has("b") == set(adapters)

    def asked(self, box: str, path: str, model: str) -> int:
        return len(self.boxes[box].admin.requests(path=path, model=model))


@pytest.fixture
def house(processes: Processes, tmp_path: Path) -> House:
    return House(processes, tmp_path)


@asynccontextmanager
async def agents(client: RawClient) -> AsyncIterator[list[Recording]]:
    """Ask for the alias without a pause; the answers, when all is over."""
    answers: list[Recording] = []
    stop = asyncio.Event()

    async def agent(number: int) -> None:
        while not stop.is_set():
            answers.append(await client.chat("acme", stream=bool(number % 2)))

    async with asyncio.TaskGroup() as group:
        for number in range(AGENTS):
            group.create_task(agent(number))
        try:
            yield answers
        finally:
            stop.set()


def model_of(answer: Recording) -> str:
    """Who answered, by the body: each simulated answer begins with its model's name, and says it in ``model``."""
    text = answer.body.decode()
    return next(name for name in (V4, V3) if f'"model":"{name}"' in text.replace(" ", ""))


def none_failed(answers: list[Recording]) -> None:
    assert {(answer.status, answer.end) for answer in answers} == {(200, "complete")}
    assert not [answer.headers for answer in answers if "x-failsoft-degraded" in answer.headers]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_new_version_goes_live_with_no_failed_request(house: House, workers: str) -> None:
    gateway = await house.gateway("--workers", workers)
    for box in house.boxes.values():
        box.admin.fault("hang_before_headers", path=LOAD, seconds=2.0)
    async with agents(gateway.client) as answers:
        await eventually(lambda: len(answers) > 40)
        house.names(V4)
        await eventually(lambda: house.both_have(V4), within_s=20)
        enough = len(answers) + 40
        await eventually(lambda: len(answers) > enough)
    none_failed(answers)
    models = [model_of(answer) for answer in answers]
    assert (models[0], models[-1]) == (V3, V4)
    versions = {(answer.headers["x-failsoft-policy"], model_of(answer)) for answer in answers}
    assert ("2", V3) in versions, "between apply and load the version before answers"
    for box in house.boxes:
        paths = [request["path"] for request in house.boxes[box].admin.requests() if request["path"] in (LOAD, UNLOAD)]
        assert paths == [LOAD, UNLOAD]
    assert await gateway.metric("failsoft_adapter_sync_actions_total", action="load", outcome="done") == 2
    assert await gateway.metric("failsoft_adapter_sync_pending") == 0
    assert (await gateway.status())["alarms"] == []


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_version_that_does_not_answer_is_rolled_back_and_nobody_notices(house: House, workers: str) -> None:
    gateway = await house.gateway("--workers", workers)
    for box in house.boxes.values():
        # The gateway's own question only: customers who were sent there would see an answer of v4.
        box.admin.fault("status", path=CHAT, adapter=V4, contains="ping", status=500)
    async with agents(gateway.client) as answers:
        await eventually(lambda: len(answers) > 20)
        house.names(V4)
        await gateway.until(lambda: _alarmed(gateway, "a", "b"))
        enough = len(answers) + 40
        await eventually(lambda: len(answers) > enough)
    none_failed(answers)
    assert {model_of(answer) for answer in answers} == {V3}
    assert house.both_have(V3)
    for box in house.boxes:
        assert house.asked(box, LOAD, V4) == 1, "it is not tried again in a tight loop"
    [a, _] = (await gateway.status())["adapter_sync"]
    assert (a["box"], a["pending"], a["failed"][0]["adapter"], a["failed"][0]["times"]) == ("a", [V4], V4, 1)
    assert a["waiting"][0]["adapter"] == V3
    code, said = await gateway.failsoft("status")
    assert code == 1
    said = " ".join(said.split())
    assert "missing or without an answer: acme_v4" in said
    for box in house.boxes.values():
        box.admin.heal()
    house.names(V3)
    await gateway.until(lambda: _alarmed(gateway))


async def _alarmed(gateway: Several, *boxes: str) -> bool:
    alarms = (await gateway.status())["alarms"]
    return {alarm["subject"] for alarm in alarms if alarm["kind"] == "adapter_sync"} == set(boxes)


async def test_a_box_that_comes_back_gets_what_it_lost(house: House) -> None:
    house.names(V3, V4)
    gateway = await house.gateway()
    await eventually(lambda: house.both_have(V3, V4), within_s=20)
    box = house.boxes["a"]
    box.kill()
    await gateway.until(lambda: _state(gateway, "a", "open"))
    box.start()
    await box.ready()
    await eventually(lambda: house.has("a") == {V3, V4}, within_s=20)


async def _state(gateway: Several, name: str, state: str) -> bool:
    return bool((await gateway.box(name))["state"] == state)


async def test_an_adapter_with_requests_in_flight_stays_until_they_have_ended(house: House) -> None:
    house.names(V3, V4, alias=V4)
    gateway = await house.gateway()
    await eventually(lambda: house.both_have(V3, V4), within_s=20)
    for box in house.boxes.values():
        # Content at once, so that it is at one box only, and then slowly.
        box.admin.fault("drip", path=CHAT, adapter=V3, after_chunks=2, every_s=2.0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(gateway.client.chat(V3, stream=True, max_tokens=2))
        await gateway.until(lambda: _in_flight(gateway))
        house.names(V4)
        await gateway.until(lambda: _waits(gateway, "requests have ended"))
        assert sum(V3 in house.has(box) for box in house.boxes) == 1, "only where it runs"
    answer = running.result()
    assert (answer.status, answer.end) == (200, "complete")
    await eventually(lambda: house.both_have(V4), within_s=20)


async def _in_flight(gateway: Several) -> bool:
    return any(box["in_flight"] for box in (await gateway.status())["boxes"])


async def _waits(gateway: Several, why: str) -> bool:
    boxes = (await gateway.status())["adapter_sync"]
    waiting = [one["why"] for box in boxes for one in box["waiting"]]
    return len(waiting) == 1 and why in waiting[0]


async def test_of_two_gateways_one_acts_and_the_other_takes_over(
    house: House, redis: StoreProcess, processes: Processes, tmp_path: Path
) -> None:
    await redis.apply(house.served.policies)
    first = await house.gateway("--redis", redis.url)
    await first.until(lambda: _acts(first))
    other = Served(processes, tmp_path / "other")
    process, url = await other.up("--redis", redis.url, env=ENV)
    second = Several(processes, process, url)
    house.names(V4)
    await redis.apply(house.served.policies)
    await eventually(lambda: house.both_have(V4), within_s=20)
    for box in house.boxes:
        assert house.asked(box, LOAD, V4) == 1
    assert not await _acts(second)
    assert await second.metric("failsoft_adapter_sync_acting") == 0
    first.process.terminate()
    await first.process.ended()
    await second.until(lambda: _acts(second))


async def _acts(gateway: Several) -> bool:
    return any(box["acting"] for box in (await gateway.status())["adapter_sync"])


async def test_a_fleet_that_does_not_ask_for_it_is_left_alone(house: House) -> None:
    house.sync(watch=False)
    gateway = await house.gateway()
    house.names(V4)
    await gateway.until(lambda: _version(gateway, 2))
    answer = await gateway.client.chat("acme")
    assert (answer.status, model_of(answer)) == (200, V3), "what the alias stood for is on the boxes still"
    assert "x-failsoft-degraded" not in answer.headers
    assert (await gateway.status())["adapter_sync"] == []
    assert house.both_have(V3)


async def _version(gateway: Several, version: int) -> bool:
    policy = (await gateway.status())["policy"]
    return bool(policy["version"] == version)
