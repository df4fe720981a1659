"""Gateways that the store no longer hears: whoever changes something is told that they may still do what they did."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.cli.served import Served
from tests.support.fault_proxy import FaultProxy, Timeout
from tests.support.processes import Processes
from tests.support.redis_server import RedisServer, free_port
from tests.workers.conftest import ENV, Several

NOBODY = "http://127.0.0.1:9"


class Town:
    """Two gateways on one store, the second over a path that can be cut."""

    def __init__(self, processes: Processes, folder: Path, redis: RedisServer, path: FaultProxy) -> None:
        self._processes = processes
        self._folder = folder
        self.redis = redis
        self.path = path
        self.port = free_port()
        self.served = Served(processes, folder / "first", NOBODY)
        self.version = 0

    async def first(self) -> Several:
        process, url = await self.served.up("--redis", self.redis.url, env=ENV)
        return Several(self._processes, process, url)

    async def second(self, name: str = "second", port: int = 0) -> Several:
        served = Served(self._processes, self._folder / name, NOBODY)
        url = f"redis://127.0.0.1:{self.path.port}"
        process, listens = await served.up("--redis", url, "--port", str(port), env=ENV)
        return Several(self._processes, process, listens)

    async def apply(self, *options: str) -> tuple[int, str]:
        """Apply what is new, and what that said."""
        self.version += 1
        self.served.customer(fallback=[{"static": f"text {self.version}"}])
        command = [sys.executable, "-m", "gateway.cli", "policies", "apply", str(self.served.policies)]
        process = await asyncio.create_subprocess_exec(
            *command, "--redis", self.redis.url, *options, stderr=asyncio.subprocess.PIPE
        )
        _, err = await process.communicate()
        return process.returncode or 0, err.decode()


@pytest.fixture
async def town(processes: Processes, tmp_path: Path) -> AsyncIterator[Town]:
    redis = RedisServer(processes, tmp_path)
    await redis.ready()
    async with FaultProxy(redis.url) as path:
        yield Town(processes, tmp_path, redis, path)


async def alive(gateway: Several, count: int) -> bool:
    return bool((await gateway.status())["replicas"]["alive"] == count)


def port(gateway: Several) -> str:
    return gateway.url.rpartition(":")[2]


async def test_one_that_is_cut_off_from_the_store_is_named_by_whatever_changes_something_until_it_is_heard_again(
    town: Town,
) -> None:
    first, second = await town.first(), await town.second()
    await first.until(lambda: alive(first, 2))
    assert (await town.apply())[0] == 0
    before = (await second.status())["policy"]["version"]
    for direction in ("upstream", "downstream"):
        town.path.poison(Timeout(), direction=direction)  # type: ignore[arg-type]
    await first.until(lambda: alive(first, 1), within_s=20)

    status, said = await town.apply()
    assert status == 1, said
    assert f"version {before + 1} is in force at 1 live gateway, and 1 is silent" in said
    named = rf"\S+:{port(second)} was last heard of \d+ s ago, at version {before}, and may still serve by it"
    assert re.search(named, said)
    assert "--forget-silent" in said
    async with httpx2.AsyncClient() as client:
        readiness = (await client.get(f"{second.url}/readyz")).json()
    assert (readiness["ready"], readiness["policy_version"]) == (True, before)

    status, said = await first.failsoft("status")
    assert status == 1
    assert re.search(named.replace(" ", r"\s+"), said)
    (silent,) = (await first.status())["replicas"]["silent"]
    assert (silent["name"].rpartition(":")[2], silent["policy_version"]) == (port(second), before)
    assert await first.metric("failsoft_replicas_silent") == 1
    status, said = await first.failsoft("degrade", "acme", "--for", "10m")
    assert re.search(rf"\S+:{port(second)} was last heard of \d+ s ago[^.]*may not follow", said), said
    status, said = await first.failsoft("restore", "acme")
    assert re.search(rf"\S+:{port(second)} was last heard of \d+ s ago[^.]*may not follow", said), said

    town.path.heal()
    await first.until(lambda: alive(first, 2), within_s=20)
    status, said = await town.apply()
    assert (status, "in force at all 2 live gateways" in said) == (0, True), said
    assert (await first.status())["replicas"]["silent"] == []


async def test_one_that_stops_while_it_is_waited_for_is_named_as_silent(town: Town) -> None:
    first, second = await town.first(), await town.second()
    await first.until(lambda: alive(first, 2))
    second.process.freeze()
    status, said = await town.apply("--timeout", "30")
    assert status == 1, said
    assert re.search(rf"\S+:{port(second)} was last heard of \d+ s ago, at version 1, and may still serve by it", said)
    second.process.thaw()


async def test_one_that_was_killed_is_named_until_somebody_says_that_it_has_ended(town: Town) -> None:
    first, second = await town.first(), await town.second()
    await first.until(lambda: alive(first, 2))
    second.process.kill()
    await first.until(lambda: alive(first, 1), within_s=20)
    assert (await town.apply())[0] == 1
    status, said = await town.apply("--forget-silent")
    assert status == 0, said
    assert re.search(rf"\S+:{port(second)}[^\n]* is forgotten", said)
    assert "in force at the one live gateway" in said
    status, said = await town.apply()
    assert (status, port(second) in said) == (0, False), said


async def test_one_that_ends_in_order_or_is_started_again_where_it_was_is_not_missed(town: Town) -> None:
    first, second = await town.first(), await town.second(port=town.port)
    await first.until(lambda: alive(first, 2))
    second.process.kill()
    third = await town.second("third", port=town.port)
    status, said = await town.apply()
    assert (status, "in force at all 2 live gateways" in said) == (0, True), said
    third.process.terminate()
    await third.process.ended(within_s=20)
    status, said = await town.apply()
    assert (status, "in force at the one live gateway" in said) == (0, True), said
