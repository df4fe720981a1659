"""What vLLM does that a gateway must guard against, seen on the real engine; and that failsoft's clients do not see it.

The numbers are those of the ten points in docs/boxes.md, which says where the other tests are.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from backend.launch import BoxPlan, VllmBox, free_port
from backend.tiny_model.artefacts import TinyModel
from tests.engine.conftest import start_gateway
from tests.engine.fleet import ADMIN_TOKEN, CUSTOMERS, EngineFleet, request, write_policies
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

ACME, GLOBEX, INITECH = CUSTOMERS[:3]
HANG_NOTICED_WITHIN_S: Final = 10.0
"""Case 4 of the faults that a gateway has to survive."""

OPEN_PATHS: Final = ("/tokenize", "/detokenize", "/invocations", "/metrics", "/load", "/version")
"""Of those that vLLM serves without a key, some that are there on every engine."""


async def status(url: str) -> dict[str, Any]:
    return dict((await RawClient(url, key=ADMIN_TOKEN).ask("/admin/status")).json())


async def until(url: str, what: str, *, within_s: float) -> None:
    """Wait for an alarm of this kind."""
    deadline = time.monotonic() + within_s
    while what not in (kinds := {alarm["kind"] for alarm in (await status(url))["alarms"]}):
        assert time.monotonic() < deadline, f"only {kinds or 'nothing'} after {within_s} s"


async def status_of(engine: EngineFleet, box: str) -> dict[str, Any]:
    return next(dict(one) for one in (await engine.status())["boxes"] if one["name"] == box)


def by(answer: Recording) -> str:
    assert answer.status == 200, answer.body
    return answer.headers["x-failsoft-served-by"]


async def said(url: str, model: str, prompt: str) -> str:
    """What a model of a box's says. Prompts that begin alike share the cache of what was computed for them."""
    body = {"model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0}
    answer = await RawClient(url).ask("/v1/completions", body, timeout_s=60.0)
    assert answer.status == 200, answer.body
    return str(answer.json()["choices"][0]["text"])


async def load(url: str, name: str, path: Path, **fields: Any) -> None:
    body = {"lora_name": name, "lora_path": str(path), **fields}
    answer = await RawClient(url).ask("/v1/load_lora_adapter", body, timeout_s=60.0)
    assert answer.status == 200, answer.body


async def unload(url: str, name: str) -> None:
    answer = await RawClient(url).ask("/v1/unload_lora_adapter", {"lora_name": name}, timeout_s=60.0)
    assert answer.status == 200, answer.body


def overwrite(folder: Path, other: Path) -> None:
    """Another adapter's weights in place of the folder's own, which nobody should ever do."""
    shutil.copy(other / "adapter_model.safetensors", folder)


class ResolvingBox(VllmBox):
    """Started as no operator can with failsoft: with vLLM's resolver for a folder of adapters."""

    def __init__(self, name: str, plan: BoxPlan, *, adapters: Path, log: Path) -> None:
        super().__init__(name, plan, log=log)
        on = {"VLLM_LORA_RESOLVER_CACHE_DIR": str(adapters)}
        self._command = replace(self._command, environment={**self._command.environment, **on})


class SmallPools:
    """Two boxes whose pool in main memory holds two adapters, where policies name three.

    The second has a resolver for an empty folder, beside which there is an adapter in ``outside``.
    """

    def __init__(self, model: TinyModel, folder: Path) -> None:
        self._original = model.adapters[ACME.adapter]
        self.copy = folder / ACME.adapter
        self.restore()
        adapters = {ACME.adapter: self.copy, GLOBEX.adapter: model.adapters[GLOBEX.adapter]}
        self.second = model.adapters[GLOBEX.adapter]
        self.third = model.adapters[INITECH.adapter]
        plan = BoxPlan(model=model.base, adapters=adapters, port=free_port(), max_loras=1, max_cpu_loras=len(adapters))
        self.boxes: dict[str, VllmBox] = {"small-a": VllmBox("small-a", plan, log=folder / "small-a.log")}
        resolved, secret = folder / "resolved", folder / "outside" / "secret"
        resolved.mkdir()
        shutil.copytree(self.third, secret)
        config = json.loads((secret / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(model.base)  # all that the resolver asks of it
        (secret / "adapter_config.json").write_text(json.dumps(config))
        plan = replace(plan, port=free_port())
        self.boxes["small-b"] = ResolvingBox("small-b", plan, adapters=resolved, log=folder / "small-b.log")

    def restore(self) -> None:
        shutil.copytree(self._original, self.copy)

    def start(self, *names: str) -> None:
        for name in names:
            self.boxes[name].start()
        for name in names:
            self.boxes[name].wait_until_ready()

    async def evict(self, name: str) -> None:
        """Have the box use the two other adapters, so that its pool drops the first."""
        client = RawClient(self.boxes[name].url)
        await load(self.boxes[name].url, INITECH.adapter, self.third)
        for customer in (GLOBEX, INITECH):
            answer = await client.ask("/v1/chat/completions", request(customer, max_tokens=2), timeout_s=60.0)
            assert answer.status == 200, answer.body


@pytest.fixture(scope="module")
def small_pools(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallPools]:
    small = SmallPools(tiny_model, tmp_path_factory.mktemp("small pools"))
    try:
        yield small
    finally:
        for box in small.boxes.values():
            box.stop()


@pytest.fixture
def small(small_pools: SmallPools) -> SmallPools:
    """Both of them up, though the test before may have ended them."""
    if not small_pools.copy.exists():
        small_pools.restore()
    small_pools.start(*(name for name, box in small_pools.boxes.items() if not box.running))
    return small_pools


async def test_3_an_unloaded_adapter_s_weights_keep_their_place_and_push_out_one_that_is_in_use(
    small: SmallPools,
) -> None:
    url = small.boxes["small-a"].url
    before = await said(url, ACME.adapter, "1 before")
    await said(url, GLOBEX.adapter, "1 used last")
    await unload(url, GLOBEX.adapter)
    await load(url, INITECH.adapter, small.third)
    others = await said(url, INITECH.adapter, "2 after")
    # Two adapters have names, and the pool holds two: with reload_room it would hold the one without a name as well.
    overwrite(small.copy, small.third)
    try:
        assert await said(url, ACME.adapter, "2 after") == others, "it was read again, so it had been dropped"
        assert before != await said(url, INITECH.adapter, "1 before"), "the two do say different things"
    finally:
        shutil.rmtree(small.copy)
        small.restore()
        await unload(url, INITECH.adapter)
        await load(url, GLOBEX.adapter, small.second)


async def test_9_a_box_with_a_resolver_serves_whatever_path_a_request_names_and_no_client_reaches_it(
    small: SmallPools, provider: Simulator, processes: Processes, tmp_path: Path
) -> None:
    outside, url = "../outside/secret", small.boxes["small-b"].url
    await said(url, outside, "1")
    listed = (await RawClient(url).ask("/v1/models")).json()["data"]
    assert outside in [model["id"] for model in listed], "it is an adapter of the box's from now on"
    (tmp_path / "policies").mkdir()
    write_policies(tmp_path / "policies", {"small-b": small.boxes["small-b"]}, provider.url)
    gateway = start_gateway(processes, tmp_path / "policies", tmp_path / "state")
    body = request(ACME, model=outside)
    answer = await RawClient(gateway, key=ACME.key).ask("/v1/chat/completions", body, timeout_s=60.0)
    assert (answer.status, answer.headers["x-failsoft-served-by"]) == (404, "none")
    await unload(url, outside)


async def test_1_an_adapter_that_ends_every_engine_ends_two_and_is_kept_off_the_next(
    small: SmallPools, provider: Simulator, processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / "policies").mkdir()
    write_policies(tmp_path / "policies", small.boxes, provider.url)
    url = start_gateway(processes, tmp_path / "policies", tmp_path / "state")

    async def ask(customer: Any) -> Recording:
        client = RawClient(url, key=customer.key)
        return await client.ask("/v1/chat/completions", request(customer, max_tokens=4), timeout_s=90.0)

    assert by(await ask(ACME)) in {"box:small-a", "box:small-b"}
    for name in small.boxes:
        await small.evict(name)
    shutil.rmtree(small.copy)

    poisoned = await ask(ACME)
    assert (by(poisoned), poisoned.headers["x-failsoft-degraded"]) == ("provider:hosted", "backend_down")
    for box in small.boxes.values():
        box.wait_until_ended()
    await until(url, "adapter_suspected", within_s=20)
    assert by(await ask(GLOBEX)) == "provider:hosted", "no box is left, and nobody gets an error"

    small.restore()
    small.start("small-b")
    deadline = time.monotonic() + 60
    while not by(answer := await ask(ACME)).startswith("box:"):
        assert answer.headers["x-failsoft-degraded"] == "circuit_open"
        assert time.monotonic() < deadline, "it answers again, and is not asked for"
    alarms = {alarm["kind"] for alarm in (await status(url))["alarms"]}
    assert "adapter_suspected" not in alarms, "its own answer clears it"


@pytest.fixture
async def probed(engine: EngineFleet, tiny_model: TinyModel, tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """A box's URL, and the folder of an adapter that the test may load there under the name ``probe``."""
    folder = tmp_path / "probe"
    shutil.copytree(tiny_model.adapters[ACME.adapter], folder)
    url = engine.boxes["box-a"].url
    yield url, folder
    await unload(url, "probe")


@pytest.mark.parametrize("in_place", [True, False])
async def test_2_an_adapter_that_was_loaded_in_place_is_read_again_at_every_step(
    probed: tuple[str, Path], tiny_model: TinyModel, in_place: bool
) -> None:
    url, folder = probed
    # Without it the field is left out, as failsoft's own sync does (tests/cli/test_backend_sync.py).
    await load(url, "probe", folder, **({"load_inplace": True} if in_place else {}))
    assert await said(url, "probe", "1 before") == await said(url, ACME.adapter, "1 before")
    overwrite(folder, tiny_model.adapters[GLOBEX.adapter])
    own, others = [await said(url, customer.adapter, "2 after") for customer in (ACME, GLOBEX)]
    assert own != others
    assert await said(url, "probe", "2 after") == (others if in_place else own)


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"])
async def test_2_no_client_can_have_an_adapter_loaded_in_place_or_unloaded(engine: EngineFleet, path: str) -> None:
    before = {box: await engine.models(box) for box in engine.boxes}
    body = {"lora_name": ACME.adapter, "lora_path": "/etc", "load_inplace": True}
    answer = await engine.ask_at(path, ACME, body)
    assert (answer.status, answer.headers["x-failsoft-served-by"]) == (404, "none")
    assert {box: await engine.models(box) for box in engine.boxes} == before


async def test_4_what_is_in_a_slot_is_known_without_the_engines_metric(engine: EngineFleet) -> None:
    for customer in CUSTOMERS:
        assert by(await engine.ask(customer, max_tokens=2)).startswith("box:")
    resident = {adapter for box in (await engine.status())["boxes"] for adapter in box["slots"]["held"]}
    assert resident == {customer.adapter for customer in CUSTOMERS}, "idle ones vanish from vLLM's own list"


async def test_7_a_hung_engine_behind_a_healthy_server_is_noticed_and_the_other_box_answers(
    engine: EngineFleet,
) -> None:
    box = engine.boxes["box-a"]
    hung = box.engine_pid()
    os.kill(hung, signal.SIGSTOP)
    try:
        began = time.monotonic()
        while (await status_of(engine, "box-a"))["state"] == "closed":
            assert time.monotonic() < began + HANG_NOTICED_WITHIN_S
            assert by(await engine.ask(ACME, max_tokens=2)) != "none"
        health = await RawClient(box.url).ask("/health", timeout_s=10.0)
        assert health.status == 200, "this is why it is not believed"
        for customer in CUSTOMERS[:4]:
            assert by(await engine.ask(customer, max_tokens=2)) == "box:box-b"
    finally:
        os.kill(hung, signal.SIGCONT)
    await engine.until_own_adapters_answer()


@pytest.mark.parametrize("model", ["../outside/secret", "/etc", f"../{ACME.adapter}", f"{ACME.adapter}/../x", "base"])
async def test_9_a_model_that_no_policy_names_reaches_no_box(engine: EngineFleet, model: str) -> None:
    answer = await engine.ask(ACME, model=model)
    assert (answer.status, answer.headers["x-failsoft-served-by"]) == (404, "none")
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", OPEN_PATHS)
async def test_10_what_a_box_serves_without_a_key_is_not_served_to_clients(engine: EngineFleet, path: str) -> None:
    body = None if path in {"/metrics", "/load", "/version"} else {"model": ACME.adapter, "prompt": "x"}
    direct = await RawClient(engine.boxes["box-a"].url).ask(path, body, timeout_s=30.0)
    assert direct.status not in {401, 403, 404}, "the engine has it open"
    answer = await engine.ask_at(path, ACME, body)
    if path == "/metrics":
        assert b"vllm:" not in answer.body
    else:
        assert (answer.status, answer.headers.get("x-failsoft-served-by", "none")) == (404, "none")
