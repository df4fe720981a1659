"""Limits hold over gateways and their workers on one Redis, and what was used is one sum."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.served import Served
from tests.faults.store_process import StoreProcess
from tests.support.processes import Processes
from tests.workers.conftest import ENV, Boxes, Several

LIMIT = 60


class Two:
    """Two gateways on one Redis, the first of two workers."""

    def __init__(self, first: Several, second: Several) -> None:
        self.gateways = (first, second)
        self.first, self.second = first, second

    @classmethod
    async def start(cls, processes: Processes, folder: Path, boxes: Boxes, redis: StoreProcess, **policy: Any) -> Two:
        started = []
        for name, workers in (("first", "2"), ("second", "1")):
            served = Served(processes, folder / name, boxes["a"].url, boxes["b"].url)
            served.customer("acme", **policy)
            process, url = await served.up("--redis", redis.url, "--workers", workers, env=ENV)
            started.append(Several(processes, process, url))
        return cls(*started)

    async def burst(self, each: int, **fields: Any) -> list[int]:
        """So many requests at each gateway at once; the statuses."""
        found = await asyncio.gather(*(gateway.crowd(each, **fields) for gateway in self.gateways))
        return [answer.status or 0 for crowd in found for answer in crowd]

    async def metric(self, name: str, **labels: str) -> float:
        return sum([await gateway.metric(name, **labels) for gateway in self.gateways])


async def test_two_gateways_hit_at_once_admit_what_the_limit_says_and_count_it_once(
    processes: Processes, tmp_path: Path, boxes: Boxes, redis: StoreProcess
) -> None:
    two = await Two.start(processes, tmp_path, boxes, redis, limits={"requests_per_minute": LIMIT})
    statuses: list[int] = []
    for _ in range(4):
        statuses += await two.burst(20, stream=False)
    served = statuses.count(200)
    assert set(statuses) == {200, 429}
    assert 0.95 * LIMIT <= served <= 1.05 * LIMIT

    asked = [await two.first.client.chat("acme_v3", stream=False) for _ in range(5)]
    served += [one.status for one in asked].count(200)
    assert served <= 1.05 * LIMIT
    refused = asked[-1]
    assert refused.status == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "requests"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-reset-requests"] != "0s"
    assert refused.headers["x-ratelimit-limit-requests"] == str(LIMIT)
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert (
        await two.metric("failsoft_limit_refused_total", customer="acme", limit="requests")
        == len(statuses) + len(asked) - served
    )

    async def counted() -> bool:
        status, said = await two.second.failsoft("usage", "--json", "--redis", redis.url)
        assert status == 0, said
        (row,) = json.loads(said)["usage"] or [{}]
        return bool(row.get("requests") == served and row["completion_tokens"] == 12 * served)

    await two.first.until(counted)
    for where in (("--redis", redis.url), ()):
        status, said = await two.second.failsoft("usage", "--customer", "acm", *where)
        assert (status, "There is no customer `acm`. Did you mean acme? Customers: acme" in said) == (1, True), said
    _, said = await two.first.failsoft("usage", "--since", "24h", "--by", "customer", "--csv")
    assert said.splitlines()[1].startswith(f"acme,{served},0,{served},")
    (shown,) = (await two.first.status())["limits"]["customers"]
    left = shown["requests"]["left"]
    assert (shown["requests"]["limit"], left <= 3) == (LIMIT, True)

    _, said = await two.second.failsoft("explain", "--customer", "acme", "--model", "acme_v3")
    assert f" of {LIMIT} requests a minute left" in said
    _, said = await two.first.failsoft("status")
    assert "limits of acme: " in said

    # Redis away: nobody is refused for that, each has its share when it is free again, and says that it is alone.
    redis.process.kill()

    async def alone() -> bool:
        return await two.metric("failsoft_accounts_alone") == 3

    await two.first.until(alone)
    assert [one.status for one in await two.first.crowd(6, stream=False)].count(200) <= 3


@pytest.mark.parametrize("workers", ["1", "2", "3"])
async def test_a_gateway_that_was_killed_and_is_started_again_lets_its_customers_in(
    processes: Processes, tmp_path: Path, boxes: Boxes, redis: StoreProcess, workers: str
) -> None:
    served = Served(processes, tmp_path, boxes["a"].url, boxes["b"].url)
    served.customer("acme", limits={"requests_per_minute": LIMIT, "concurrency": 24})
    options = ("--redis", redis.url, "--workers", workers)
    process, url = await served.up(*options, env=ENV)
    before = await Several(processes, process, url).crowd(6, stream=False)
    assert {answer.status for answer in before} == {200}
    process.kill()
    process, url = await served.up(*options, env=ENV)
    after = await Several(processes, process, url).crowd(8, stream=False)
    assert [answer.body for answer in after if answer.status != 200] == []
