"""Two gateways on one Redis: what is applied comes into force at both, whole, and whoever applied it hears of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from gateway.policy.standing import REPLICA_TTL_S
from gateway.policy.store import PolicyStore
from tests.cli.served import ADAPTER, KEY, Served
from tests.faults.store_process import StoreProcess
from tests.support.processes import Processes
from tests.workers.conftest import ENV, Several

LISTENS = "failsoft listens on "
NOBODY = "http://127.0.0.1:9"
"""No box listens there, so that the policy's fixed text answers, and shows which policy that was."""


@dataclass
class Pair:
    """Two gateways, one with two workers, their store and their policies."""

    gateways: list[Several]
    redis: StoreProcess
    served: Served
    version: int = 0
    """In force as a test begins."""

    async def policies(self, *arguments: str) -> tuple[int, str, str]:
        """Run `failsoft policies`; the status, stdout, stderr."""
        command = [sys.executable, "-m", "gateway.cli", "policies", *arguments, "--redis", self.redis.url]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    def write(self, version: int) -> None:
        """Have the version of that number answer so."""
        self.served.customer(fallback=[{"static": f"version {version}"}])

    async def next(self) -> int:
        """Apply one more version, and do not wait for it."""
        async with Redis.from_url(self.redis.url) as redis:
            number = int(await redis.hget("{failsoft}:head", "version") or 0) + 1
        self.write(number)
        assert await self.redis.apply(self.served.policies) == number
        return number

    async def both_follow(self) -> bool:
        """Whether each gateway knows that both have the version."""
        found = [(await gateway.status())["replicas"]["gateways"] for gateway in self.gateways]
        return all([one["policy_version"] for one in gateways] == [self.version] * 2 for gateways in found)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Started once for all tests of this module."""
    folder = tmp_path_factory.mktemp("pair")
    with Processes(folder) as processes:
        redis = StoreProcess.start(processes)
        redis.wait_ready()
        served, other = Served(processes, folder / "first", NOBODY), Served(processes, folder / "second", NOBODY)
        with asyncio.Runner() as runner:
            runner.run(redis.apply(served.policies))
        options = ("--redis", redis.url)
        gateways = [served.start(*options, "--workers", "2", env=ENV), other.start(*options, env=ENV)]
        for gateway in gateways:
            gateway.wait_ready(lambda gateway=gateway: LISTENS in gateway.output)
        urls = [gateway.output.partition(LISTENS)[2].split()[0] for gateway in gateways]
        several = [Several(processes, gateway, url) for gateway, url in zip(gateways, urls, strict=True)]
        yield Pair(several, redis, served)
        redis.close()


@pytest.fixture
async def pair(started: Pair) -> Pair:
    """With a version in force at both that answers ``version N``."""
    started.version = await started.next()
    await started.gateways[0].until(started.both_follow)
    return started


@asynccontextmanager
async def frozen(pair: Pair, *gateways: Several) -> AsyncIterator[None]:
    """These stand still, and the store takes them for alive, however long a command takes to start meanwhile."""
    store = PolicyStore(pair.redis.url)
    ports = tuple(f":{gateway.url.rpartition(':')[2]}" for gateway in gateways)
    standing = [one for one in await store.replicas() if one.name.endswith(ports)]
    assert len(standing) == len(gateways)

    async def keep() -> None:
        while True:
            for one in standing:
                assert one.standing is not None
                await store.beat(one.id, one.standing)
            await asyncio.sleep(REPLICA_TTL_S / 5)

    for gateway in gateways:
        gateway.process.freeze()
    keeping = asyncio.create_task(keep())  # noqa: TID251  (cancelled below)
    try:
        yield
    finally:
        keeping.cancel()
        ended = (await asyncio.gather(keeping, return_exceptions=True))[0]
        await store.close()
        for gateway in gateways:
            gateway.process.thaw()
        assert isinstance(ended, asyncio.CancelledError), ended


async def _ask(client: httpx2.AsyncClient, url: str) -> httpx2.Response:
    return await client.post(
        f"{url}/v1/chat/completions",
        json={"model": ADAPTER, "messages": [{"role": "user", "content": "Hi"}]},
        headers={"authorization": f"Bearer {KEY}"},
    )


async def test_apply_waits_until_every_gateway_decides_by_the_new_version(pair: Pair) -> None:
    before, after = pair.version, pair.version + 1
    pair.write(after)
    status, out, err = await pair.policies("apply", str(pair.served.policies), "--json", "--note", "louder")
    assert status == 0, err
    names = {f":{gateway.url.rpartition(':')[2]}" for gateway in pair.gateways}
    found = json.loads(out)["gateways"]
    assert {":" + name.rpartition(":")[2] for name in found["in_force"]} == names
    assert found["not_in_force"] == []
    # It holds now, in whichever worker: nobody waits for it once more.
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0)) as client:
        for gateway in pair.gateways * 3:
            answer = await _ask(client, gateway.url)
            assert (answer.headers["x-failsoft-policy"], _text(answer)) == (str(after), f"version {after}")

    async def shown() -> bool:
        _, said = await pair.gateways[0].failsoft("status")
        return re.search(rf"policy versions: \S+:\d+ {after}, \S+:\d+ {after}", said) is not None

    # It hears of the other with its own next sign of life.
    await pair.gateways[0].until(shown)

    status, out, err = await pair.policies("rollback", str(before), "--base", str(after))
    assert status == 0, err
    assert "in force at all 2 live gateways" in err
    async with httpx2.AsyncClient() as client:
        answer = await _ask(client, pair.gateways[1].url)
    assert (answer.headers["x-failsoft-policy"], _text(answer)) == (str(after + 1), f"version {before}")
    status, out, _ = await pair.policies("history", "--json", "--limit", "3")
    notes = [(one["version"], one["note"], one["customers"]) for one in json.loads(out)["versions"]]
    assert notes == [(after + 1, f"rollback to {before}", 1), (after, "louder", 1), (before, "", 1)]


async def test_a_gateway_that_does_not_take_a_version_is_named_with_its_reason(pair: Pair) -> None:
    first, second = pair.gateways
    pair.write(pair.version + 1)
    async with frozen(pair, second):
        status, _, err = await pair.policies("apply", str(pair.served.policies), "--timeout", "3")
    assert status == 1
    assert f"version {pair.version + 1} is in force at 1 of 2 live gateways" in err
    port = second.url.rpartition(":")[2]
    assert re.search(rf"\S+:{port} has version {pair.version} of store \w+ in force", err)

    # What no gateway can use comes past the command's own checks only by another release, or another hand.
    refused = pair.version + 2
    async with Redis.from_url(pair.redis.url) as redis:
        applying = asyncio.create_task(  # noqa: TID251  (awaited below)
            pair.policies("apply", str(pair.served.policies), "--json", "--timeout", "20")
        )
        async with frozen(pair, first, second):
            while await redis.hget("{failsoft}:head", "version") != str(refused).encode():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await redis.hset(f"{{failsoft}}:version:{refused}", "document", "{}")
        status, out, _ = await applying
    assert status == 1
    without = json.loads(out)["gateways"]["not_in_force"]
    assert len(without) == 2
    for one in without:
        assert one["why"].startswith(f"refuses it: version {refused} ")
        assert "does not match its digest" in one["why"]


async def test_a_version_that_cannot_be_compiled_ends_no_worker_and_is_in_force_in_none(pair: Pair) -> None:
    several = pair.gateways[0]
    before = await several.status()
    document = b'{"format":1,"fleet":{},"defaults":{},"customers":[]}'
    async with Redis.from_url(pair.redis.url) as redis:
        head = {"version": str(pair.version + 1), "digest": hashlib.sha256(document).hexdigest()}
        store_id = (await redis.hget("{failsoft}:head", "store_id") or b"").decode()
        meta = {**head, "store_id": store_id, "version": pair.version + 1, "created": 1}
        where = f"{{failsoft}}:version:{pair.version + 1}"
        await redis.hset(where, mapping={"meta": json.dumps(meta), "document": document})
        await redis.hset("{failsoft}:head", mapping=head)

    async def refused() -> bool:
        return any(alarm["kind"] == "policy_version_refused" for alarm in (await several.status())["alarms"])

    await several.until(refused, within_s=20)
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0)) as client:
        for _ in range(4):
            assert _text(await _ask(client, several.url)) == f"version {pair.version}"
    pair.version = await pair.next()
    await several.until(pair.both_follow, within_s=20)
    pids = [[worker["pid"] for worker in status["workers"]] for status in (before, await several.status())]
    assert pids[0] == pids[1]


async def test_no_request_is_decided_by_half_of_two_versions_and_none_by_an_older_one(pair: Pair) -> None:
    answered: list[list[tuple[int, str]]] = []
    done = asyncio.Event()

    async def keep_asking(url: str) -> None:
        mine: list[tuple[int, str]] = []
        answered.append(mine)
        async with httpx2.AsyncClient() as client:
            while not done.is_set():
                answer = await _ask(client, url)
                assert answer.status_code == 200
                mine.append((int(answer.headers["x-failsoft-policy"]), _text(answer)))

    asking = [asyncio.ensure_future(keep_asking(gateway.url)) for gateway in pair.gateways for _ in range(3)]  # noqa: TID251
    last = 0
    for _ in range(25):
        last = await pair.next()
    async with asyncio.timeout(20):
        while not all(mine and mine[-1][0] == last for mine in answered):  # noqa: ASYNC110  (of other processes)
            await asyncio.sleep(0.02)
    done.set()
    await asyncio.gather(*asking)
    for mine in answered:
        assert all(text == f"version {version}" for version, text in mine)
        assert [version for version, _ in mine] == sorted(version for version, _ in mine)


def _text(answer: httpx2.Response) -> str:
    body: Any = answer.json()
    return str(body["choices"][0]["message"]["content"])
