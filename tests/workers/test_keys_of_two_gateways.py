"""Keys and admin tokens change on every gateway within a second, of one process or several; their uses are audited."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.redis_link import ACL_RULES
from tests.cli.served import ADAPTER, KEY, Served, digest
from tests.faults.store_process import StoreProcess
from tests.support.processes import Processes
from tests.support.raw_client import RawClient
from tests.workers.conftest import ENV, Boxes, Several

NEW_KEY = "fs-acme-new"
DRAIN = "/admin/boxes/a/drain"
WITHIN_S = 1.0
"""The issue's bound on a change to take effect on every gateway."""


async def let_in(redis: StoreProcess) -> None:
    """A user with the documented permissions, and no others."""
    await redis.ask("ACL", "SETUSER", "failsoft", "reset", "on", ">x", *ACL_RULES.split())


class Two:
    """A gateway of one process and one of a watcher and two workers, on one Redis where they may do what they must."""

    def __init__(self, processes: Processes, redis: StoreProcess, served: Served) -> None:
        self._processes = processes
        self._redis = redis
        self.served = served
        self.gateways: list[Several] = []

    async def up(self, folder: Path, boxes: Boxes) -> None:
        await let_in(self._redis)
        redis = f"{self._redis.url}?username=failsoft&password=x"

        async def one(name: str, workers: str) -> Several:
            served = Served(self._processes, folder / name, boxes["a"].url, boxes["b"].url)
            process, url = await served.up("--redis", redis, "--workers", workers, env=ENV)
            return Several(self._processes, process, url)

        self.gateways += await asyncio.gather(one("one", "1"), one("several", "2"))

    async def apply(self) -> float:
        """Apply the folder; when it was written, on the monotonic clock."""
        await self._redis.apply(self.served.policies)
        return time.monotonic()

    async def statuses(self, key: str) -> list[int | None]:
        """Of one request to each gateway, several at once so that every worker is met."""
        asked = [
            RawClient(gateway.url, key=key).chat(ADAPTER, stream=False) for gateway in self.gateways for _ in range(6)
        ]
        return [answer.status for answer in await asyncio.gather(*asked)]

    async def admin(self, token: str, path: str = "/admin/status", **more: Any) -> list[int | None]:
        asked = [RawClient(gateway.url, key=token).ask(path, **more) for gateway in self.gateways]
        return [answer.status for answer in await asyncio.gather(*asked)]

    async def failsoft(self, *arguments: str, token: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "gateway.cli", *arguments]
        env = {"FAILSOFT_URL": self.gateways[0].url, "FAILSOFT_ADMIN_TOKEN": token, "COLUMNS": "200"}
        process = self._processes.command(command, name=f"failsoft {arguments[0]}", env=env)
        return await process.ended(within_s=30.0), process.output


@pytest.fixture
async def two(processes: Processes, tmp_path: Path, boxes: Boxes, redis: StoreProcess) -> Two:
    served = Served(processes, tmp_path / "shared", boxes["a"].url, boxes["b"].url)
    await redis.apply(served.policies)
    found = Two(processes, redis, served)
    await found.up(tmp_path, boxes)
    return found


async def test_keys_are_rotated_without_a_gap_and_revoked_within_a_second(two: Two, redis: StoreProcess) -> None:
    two.served.customer("acme", KEY, NEW_KEY)
    over, seen = False, []

    async def keep_asking() -> None:
        while not over:
            # The agents' side of a rotation: the old key until the new one is in force, then that.
            seen.extend(await two.statuses(key))

    key = KEY
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_asking())
        added = await two.apply()
        while set(await two.statuses(NEW_KEY)) != {200}:
            assert time.monotonic() - added < 5 * WITHIN_S
        key = NEW_KEY
        two.served.customer("acme", NEW_KEY)
        revoked = await two.apply()
        while set(await two.statuses(KEY)) != {401}:
            assert time.monotonic() - revoked < 5 * WITHIN_S
        took_s = time.monotonic() - revoked
        over = True
    assert took_s < WITHIN_S
    assert set(seen) == {200}
    assert set(await two.statuses(KEY)) == {401}
    # Nothing that the gateways asked of Redis was more than they may.
    assert await redis.ask("ACL", "LOG") == []


async def test_an_admin_token_comes_and_goes_with_the_policies_and_its_uses_are_audited(
    two: Two, redis: StoreProcess
) -> None:
    reader, writer = "fsa_the-reader", "fsa_the-writer"
    fleet = json.loads((two.served.policies / "fleet.yaml").read_text())
    tokens = [
        {"name": "dashboards", "sha256": digest(reader), "scope": "read", "expires": "2999-01-01"},
        {"name": "robot", "sha256": digest(writer), "scope": "write"},
    ]
    # Days are not quoted in YAML.
    text = json.dumps({**fleet, "admin_tokens": tokens}).replace('"2999-01-01"', "2999-01-01")
    (two.served.policies / "fleet.yaml").write_text(text)
    assert await two.admin(reader) == [401, 401]
    await two.apply()
    await until(lambda: two.admin(reader), [200, 200])
    assert await two.admin(reader, DRAIN, method="POST") == [403, 403]
    assert await two.admin(writer, DRAIN, method="POST") == [200, 200]
    assert (await two.failsoft("undrain", "a", token=writer))[0] == 0
    code, said = await two.failsoft("drain", "a", token=reader)
    assert (code, "scope: write" in said) == (1, True)

    # Who, what and with what outcome, of both gateways, however one asks; a refusal that is repeated is counted.
    acts = [
        ("dashboards", "drain", "403"),
        ("dashboards", "drain", "403"),
        ("robot", "drain", "200"),
        ("robot", "drain", "200"),
        ("robot", "undrain", "200"),
    ]
    for gateway in two.gateways:
        await until(lambda gateway=gateway: posts(gateway, reader), acts)  # type: ignore[misc]
    entries = (await audit(two.gateways[1], reader))["entries"]
    assert {entry["where"] for entry in entries if entry["gateway"]} == {"127.0.0.1"}
    assert "policies: version 2" in {entry["what"] for entry in entries}
    assert not [entry for entry in entries if entry["what"].startswith("GET") and entry["outcome"] == "200"]
    code, said = await two.failsoft("audit", "--since", "1h", token=reader)
    assert (code, "POST /admin/boxes/a/undrain" in said) == (0, True)

    # While Redis is away: what the gateway that is asked remembers, and the rest once it is back.
    redis.process.kill()
    assert await two.admin(writer, DRAIN, method="POST") == [200, 200]
    code, said = await two.failsoft("audit", token=reader)
    assert (code, "robot" in said) == (3, True)
    assert "this is not all, only what one gateway remembers: the store at unix://" in said
    assert await two.gateways[0].metric("failsoft_audit_waiting") == 1
    redis.process.start()
    await redis.ready()
    await let_in(redis)
    acts += [("robot", "drain", "200")] * 2
    await until(lambda: posts(two.gateways[1], reader), sorted(acts))

    (two.served.policies / "fleet.yaml").write_text(json.dumps(fleet))
    revoked = await two.apply()
    await until(lambda: two.admin(reader), [401, 401])
    assert time.monotonic() - revoked < WITHIN_S
    assert await two.admin(ENV["FAILSOFT_ADMIN_TOKEN"]) == [200, 200]


async def until(ask: Callable[[], Awaitable[Any]], answer: Any) -> None:
    """Wait until it is answered so."""
    async with asyncio.timeout(15):
        while (found := await ask()) != answer:  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.01)
    assert found == answer


async def audit(gateway: Several, token: str) -> dict[str, Any]:
    return dict((await RawClient(gateway.url, key=token).ask("/admin/audit")).json())


async def posts(gateway: Several, token: str) -> list[tuple[str, str, str]]:
    entries = (await audit(gateway, token))["entries"]
    return sorted(
        (entry["who"], entry["what"].rpartition("/")[2], entry["outcome"])
        for entry in entries
        if entry["what"].startswith("POST")
    )
