"""An adapter's next version goes live through an alias, and back, on a gateway of two workers that follows a store."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import openai

from tests.cli.served import KEY, Served
from tests.faults.store_process import StoreProcess
from tests.support.eventually import eventually
from tests.support.lag import Lag
from tests.support.processes import Processes
from tests.support.raw_client import RawClient

TOKEN = "an-admin-token"
V3, V4 = ADAPTERS = ["acme_v3", "acme_v4"]
AGENTS = 8
IN_FORCE_WITHIN_S = 1.0


async def test_v4_goes_live_without_any_agent_changing_and_back_in_a_second(
    processes: Processes, tmp_path: Path, redis: StoreProcess
) -> None:
    boxes = [processes.box(name=name, adapters=ADAPTERS, tokens=2, ttft_ms=1, itl_ms=1) for name in ("a", "b")]
    for box in boxes:
        box.wait_ready()
    served = Served(processes, tmp_path, *(box.url for box in boxes))

    async def weigh(v3: int, v4: int) -> tuple[int, float]:
        """The version, and when it was applied."""
        served.customer(adapters=ADAPTERS, aliases={"acme": {V3: v3, V4: v4}})
        return await redis.apply(served.policies), time.monotonic()

    await weigh(100, 0)
    _, url = await served.up("--redis", redis.url, "--workers", "2", env={"FAILSOFT_ADMIN_TOKEN": TOKEN})

    # Each answer: whose, the policy's version, which model, when it was asked for.
    seen: list[tuple[int, int, str, float]] = []
    stop = asyncio.Event()

    async def agent(number: int) -> None:
        history: list[Any] = [{"role": "user", "content": f"This is conversation {number}."}]
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=20.0) as client:
            while not stop.is_set():
                asked = time.monotonic()
                raw = await client.chat.completions.with_raw_response.create(model="acme", messages=history)
                answer = raw.parse()
                assert "x-failsoft-degraded" not in raw.headers
                seen.append((number, int(raw.headers["x-failsoft-policy"]), answer.model, asked))
                said = {"role": "assistant", "content": answer.choices[0].message.content}
                history = [*history[:5], said, {"role": "user", "content": "And then?"}]

    def all_under(version: int) -> bool:
        return {number for number, under, _, _ in seen if under == version} == set(range(AGENTS))

    async with asyncio.TaskGroup() as agents:
        for number in range(AGENTS):
            agents.create_task(agent(number))
        await eventually(lambda: all_under(1))
        for v4 in (5, 50, 100):
            version, _ = await weigh(100 - v4, v4)
            await eventually(lambda version=version: all_under(version))  # type: ignore[misc]
        lag = Lag()
        back, back_at = await weigh(100, 0)
        await eventually(lambda: all_under(back))
        in_force_at = back_at + IN_FORCE_WITHIN_S + lag.s
        await eventually(lambda: max(asked for *_, asked in seen) > in_force_at)
        stop.set()

    models: dict[tuple[int, int], set[str]] = {}
    for number, under, model, _ in seen:
        models.setdefault((under, number), set()).add(model)
    assert all(len(found) == 1 for found in models.values()), "a conversation keeps its version under one policy"
    on_v4 = {
        under: {number for (one, number), found in models.items() if (one, V4) == (under, *found)}
        for under in range(1, 6)
    }
    assert not on_v4[1]
    assert on_v4[2] <= on_v4[3] <= on_v4[4] == set(range(AGENTS))
    late = {model for _, _, model, asked in seen if asked > in_force_at}
    assert late == {V3}

    await weigh(95, 5)
    admin = RawClient(url, key=TOKEN)

    async def found() -> dict[str, Any]:
        return dict((await admin.ask("/admin/status")).json())

    async with asyncio.timeout(30):
        while (status := await found())["policy"]["version"] <= back:  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.05)
    ((split),) = status["aliases"]
    counts = {version["adapter"]: version["requests"] for version in split["versions"]}
    assert (split["customer"], split["alias"]) == ("acme", "acme")
    assert counts == {adapter: sum(model == adapter for _, _, model, _ in seen) for adapter in ADAPTERS}
    metrics = (await admin.ask("/metrics")).body.decode()
    labels = f'adapter="{V4}",alias="acme",customer="acme"'
    assert f"failsoft_alias_requests_total{{{labels}}} {float(counts[V4])}" in metrics

    async def failsoft(*arguments: str) -> str:
        env = {"FAILSOFT_URL": url, "FAILSOFT_ADMIN_TOKEN": TOKEN, "COLUMNS": "240", "TERM": "dumb"}
        command = [sys.executable, "-m", "gateway.cli", *arguments]
        process = processes.command(command, name=f"failsoft {arguments[0]}", env=env)
        assert await process.ended(within_s=30.0) in (0, 1), process.output
        return process.output

    asking = ("explain", "--customer", "acme", "--model", "acme")
    said, shown, as_json = await asyncio.gather(
        failsoft("status"), failsoft(*asking), failsoft(*asking, "--conversation", "talk-7", "--json")
    )
    assert f"alias acme of acme: {V3} weight 95, {counts[V3]} requests" in said
    assert f"acme stands for {V3} in most conversations" in shown
    assert "acme_v3 95%, acme_v4 5%" in shown
    plan = json.loads(as_json)
    assert (plan["model"], plan["alias"]["chosen_by"], plan["alias"]["weights"]) == (
        "acme",
        "conversation",
        {V3: 95, V4: 5},
    )
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        answer = await client.chat.completions.create(
            model="acme", messages=[], extra_headers={"x-failsoft-conversation": "talk-7"}
        )
    assert answer.model == plan["alias"]["adapter"]
