"""An adapter's next version goes live on a real box under continuous requests, and a bad one does not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.launch import BASE_MODEL, BoxPlan, VllmBox, free_port
from backend.tiny_model.artefacts import TinyModel
from gateway.tasks import TaskSet
from tests.engine.conftest import start_gateway
from tests.engine.fleet import ADMIN_TOKEN, PROMPT
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.raw_client import RawClient, Recording

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

V3, V4, V5 = "customer_acme_v3", "customer_acme_v4", "customer_acme_v5"
KEY = "fs-acme-key"
LATER = "We are in reduced mode."


@pytest.fixture
def adapters(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """``v3``, a ``v4`` that says other things, and a ``v5`` of a higher rank than the box takes."""
    root = tmp_path / "adapters"
    shutil.copytree(tiny_model.adapters[V3], root / V3)
    shutil.copytree(tiny_model.adapters["customer_globex_v1"], root / V4)
    shutil.copytree(root / V4, root / V5)
    config = json.loads((root / V5 / "adapter_config.json").read_text())
    (root / V5 / "adapter_config.json").write_text(json.dumps({**config, "r": 64}))
    return root


@pytest.fixture
def box(tiny_model: TinyModel, adapters: Path, tmp_path: Path) -> Iterator[VllmBox]:
    plan = BoxPlan(model=tiny_model.base, adapters={V3: adapters / V3}, port=free_port(), max_loras=2)
    with VllmBox("live", plan, log=tmp_path / "live.log") as box:
        box.start()
        box.wait_until_ready()
        yield box


class Policies:
    """Acme's alias stands for one adapter, the only one that it names; a gateway puts it on the box."""

    def __init__(self, folder: Path, box: VllmBox, adapters: Path) -> None:
        self.path = folder / "policies"
        (self.path / "customers").mkdir(parents=True)
        fleet = {
            "base_model": BASE_MODEL,
            "adapter_root": str(adapters),
            "sync": {"watch": True, "grace": "1s"},
            "boxes": {"live": {"url": box.url, "max_loras": 2}},
        }
        (self.path / "fleet.yaml").write_text(json.dumps({"fleets": {"main": fleet}}))
        # Long enough for a load beside two engines' worth of requests on two cores.
        rules = {"ttft_budget": "20s", "on_broken_stream": "error", "fallback": [{"static": LATER}]}
        (self.path / "defaults.yaml").write_text(json.dumps({"defaults": rules}))
        self.stands_for(V3)

    def stands_for(self, adapter: str) -> None:
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        policy = {
            "customer": "acme",
            "api_keys": [f"sha256:{digest}"],
            "adapters": [adapter],
            "aliases": {"acme": adapter},
        }
        (self.path / "customers" / "acme.yaml").write_text(json.dumps(policy))


async def test_v4_goes_live_with_no_failed_request_and_a_bad_v5_is_kept_out(
    box: VllmBox, adapters: Path, processes: Processes, tmp_path: Path
) -> None:
    policies = Policies(tmp_path, box, adapters)
    url = start_gateway(processes, policies.path, tmp_path / "state")
    client, admin = RawClient(url, key=KEY), RawClient(url, key=ADMIN_TOKEN)
    answers: list[Recording] = []
    tasks = TaskSet()

    async def agent(stream: bool) -> None:
        body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8, "temperature": 0}
        while True:
            answers.append(
                await client.ask("/v1/chat/completions", {"model": "acme", "stream": stream, **body}, timeout_s=60.0)
            )

    async def listed() -> dict[str, Any]:
        found = (await RawClient(box.url).ask("/v1/models")).json()["data"]
        return {model["id"]: model["root"] for model in found if model["parent"] is not None}

    async def until_listed(*names: str) -> None:
        async with asyncio.timeout(60):
            while set(await listed()) != set(names):  # noqa: ASYNC110  # another process sets no event
                await asyncio.sleep(0.1)

    async def sync() -> dict[str, Any]:
        [found] = (await admin.ask("/admin/status")).json()["adapter_sync"]
        return dict(found)

    for stream in (False, True):
        tasks.spawn(agent(stream), name="agent")
    try:
        await eventually(lambda: len(answers) > 4, within_s=60)
        policies.stands_for(V4)
        await until_listed(V4)
        assert await listed() == {V4: str(adapters / V4)}
        enough = len(answers) + 6
        await eventually(lambda: len(answers) > enough, within_s=60)
        policies.stands_for(V5)
        async with asyncio.timeout(60):
            while not (await sync())["failed"]:  # noqa: ASYNC110  # another process sets no event
                await asyncio.sleep(0.1)
        enough = len(answers) + 6
        await eventually(lambda: len(answers) > enough, within_s=60)
        found = await sync()
    finally:
        await tasks.close()

    assert {(answer.status, answer.end) for answer in answers} == {(200, "complete")}
    assert not [answer.headers for answer in answers if "x-failsoft-degraded" in answer.headers]
    models = [next(name for name in (V3, V4, V5) if f'"{name}"'.encode() in answer.body) for answer in answers]
    assert (models[0], models[-1]) == (V3, V4)
    assert V5 not in models
    assert await listed() == {V4: str(adapters / V4)}, "what it was to replace stays"
    [failed] = found["failed"]
    assert failed["adapter"] == V5
    assert "rank" in failed["why"].lower(), "in vLLM's own words"
    assert [one["adapter"] for one in found["waiting"]] == [V4]
