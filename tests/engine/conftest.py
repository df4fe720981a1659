"""Two real vLLM boxes, a stand-in provider and the gateway before them, shared by all tests against the engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from backend.launch import ENGINE_PYTHON, BoxPlan, VllmBox, free_port
from backend.tiny_agents import artefacts as agents
from backend.tiny_agents.artefacts import TinyAgents
from backend.tiny_model.artefacts import TinyModel, ensure
from tests.engine.fleet import ADMIN_TOKEN, CUSTOMERS, GENERIC_MODEL, EngineFleet, request, write_policies
from tests.support.processes import Processes, Simulator

PROVIDER_KEY: Final = "sk-of-the-provider"


@pytest.fixture(scope="session")
def engine_python() -> Path:
    if not ENGINE_PYTHON.exists():
        pytest.fail("the real engine is not set up: run `make engine`, or these tests with `make test-engine`")
    return ENGINE_PYTHON


@pytest.fixture(scope="session")
def tiny_model(engine_python: Path) -> TinyModel:
    """Untrained: talks without end, which streams need that are broken half-way."""
    return ensure(engine_python)


@pytest.fixture(scope="session")
def tiny_agents(engine_python: Path) -> TinyAgents:
    """Trained: calls the right tool, or a wrong one. `make engine` trains it, which takes minutes."""
    return agents.ensure(engine_python)


@pytest.fixture(scope="session")
def boxes(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, VllmBox]]:
    """`box-a` and `box-b`, both up. Tests may kill them: `engine` brings them back for the next one."""
    logs = tmp_path_factory.mktemp("boxes")
    started = {}
    for name in ("box-a", "box-b"):
        # A slot for every adapter: one that has to wait for a slot is late, which is not what is tested here.
        slots = len(tiny_model.adapters)
        plan = BoxPlan(model=tiny_model.base, adapters=tiny_model.adapters, port=free_port(), max_loras=slots)
        started[name] = VllmBox(name, plan, log=logs / f"{name}.log")
    try:
        for box in started.values():
            box.start()
        for box in started.values():
            box.wait_until_ready()
        yield started
    finally:
        for box in started.values():
            box.stop()


@pytest.fixture(scope="session")
def own_answers(boxes: dict[str, VllmBox]) -> dict[str, str]:
    """What each adapter says when a box is asked itself."""
    answers = {}
    with httpx2.Client(base_url=boxes["box-a"].url, timeout=60.0, trust_env=False) as client:
        for customer in CUSTOMERS:
            answer = client.post("/v1/chat/completions", json=request(customer)).raise_for_status().json()
            answers[customer.adapter] = answer["choices"][0]["message"]["content"]
    return answers


@pytest.fixture(scope="session")
def provider(session_processes: Processes) -> Simulator:
    provider = session_processes.provider(api_key=PROVIDER_KEY, model=[GENERIC_MODEL], ttft_ms=50, itl_ms=5)
    provider.wait_ready()
    return provider


@pytest.fixture(scope="session")
def gateway_url(
    boxes: dict[str, VllmBox],
    provider: Simulator,
    session_processes: Processes,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The gateway's base URL, without /v1. It is started once: whatever heals, heals by itself."""
    policies = tmp_path_factory.mktemp("policies")
    write_policies(policies, boxes, provider.url)
    return start_gateway(session_processes, policies, tmp_path_factory.mktemp("state"))


def start_gateway(processes: Processes, policies: Path, state: Path) -> str:
    """A gateway with these policies; its base URL, once it listens."""
    command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0"]
    command += ["--policies", str(policies), "--state", str(state)]
    gateway = processes.command(
        command, name="gateway", env={"PROVIDER_KEY": PROVIDER_KEY, "FAILSOFT_ADMIN_TOKEN": ADMIN_TOKEN}
    )
    gateway.wait_ready(lambda: "failsoft listens on " in gateway.output)
    return gateway.output.partition("failsoft listens on ")[2].split()[0]


@pytest.fixture
async def engine(
    boxes: dict[str, VllmBox], gateway_url: str, own_answers: dict[str, str]
) -> AsyncIterator[EngineFleet]:
    """Everything, with both boxes up and the gateway using them."""
    down = [box for box in boxes.values() if not box.running]
    for box in down:
        box.start()
    await asyncio.gather(*(asyncio.to_thread(box.wait_until_ready) for box in down))
    async with EngineFleet(boxes, gateway_url, own_answers) as fleet:
        await fleet.until_own_adapters_answer()
        yield fleet
