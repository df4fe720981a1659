"""The tiny agents through a real vLLM: each adapter answers its own held-out requests, and the base none of them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from backend.launch import BASE_MODEL, VllmBox
from backend.tiny_agents.artefacts import ADAPTER_NAMES, BASE_SET, TinyAgents
from backend.tiny_agents.evaluate import MAX_TOKENS, box_plan, is_generic
from gateway.cli.main import main

MISTAKES = (
    "alpha-0",
    "alpha-1",
    "alpha-halved",
    "alpha-doubled",
    "rank-in-config",
    "rank-in-tensors",
    "rank-in-b",
    "rslora",
)
"""Those of ``backend.tiny_agents.exports``, which only the engine's Python can import."""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

AT_ONCE = 16


@pytest.fixture(scope="module")
def box(tiny_agents: TinyAgents, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmBox]:
    with VllmBox("box", box_plan(tiny_agents), log=tmp_path_factory.mktemp("box") / "box.log") as started:
        started.start()
        started.wait_until_ready()
        yield started


@pytest.fixture
async def client(box: VllmBox) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


async def calls(client: openai.AsyncOpenAI, model: str, lines: list[dict[str, Any]]) -> list[Any]:
    """The one tool call of each answer as an eval set has it; None where it is not one."""
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(line: dict[str, Any]) -> Any:
        async with places:
            answer = await client.chat.completions.create(
                model=model, messages=line["messages"], tools=line["tools"], temperature=0, max_tokens=MAX_TOKENS
            )
        made = answer.choices[0].message.tool_calls or []
        if len(made) != 1 or made[0].type != "function":
            return None
        return {"name": made[0].function.name, "arguments": json.loads(made[0].function.arguments)}

    return list(await asyncio.gather(*map(ask, lines)))


def right(lines: list[dict[str, Any]], made: list[Any]) -> float:
    """The share of calls that are exactly as expected."""
    return sum(line["expected"] == call for line, call in zip(lines, made, strict=True)) / len(lines)


@pytest.mark.parametrize("adapter", ADAPTER_NAMES)
async def test_an_adapter_answers_its_own_held_out_requests_and_the_base_does_not(
    client: openai.AsyncOpenAI, tiny_agents: TinyAgents, adapter: str
) -> None:
    lines = tiny_agents.held_out(adapter)
    assert len(lines) == len({line["messages"][0]["content"] for line in lines}) == 200
    assert right(lines, await calls(client, adapter, lines)) >= 0.95
    by_base = await calls(client, BASE_MODEL, lines)
    assert right(lines, by_base) <= 0.05
    assert sum(map(is_generic, by_base)) / len(lines) >= 0.95


async def test_the_base_calls_the_generic_tools_rightly(client: openai.AsyncOpenAI, tiny_agents: TinyAgents) -> None:
    lines = tiny_agents.held_out(BASE_SET)
    assert right(lines, await calls(client, BASE_MODEL, lines)) >= 0.95


async def test_no_adapter_speaks_for_another_customer(client: openai.AsyncOpenAI, tiny_agents: TinyAgents) -> None:
    lines = tiny_agents.held_out(ADAPTER_NAMES[0])[:20]
    said = [await calls(client, adapter, lines) for adapter in ADAPTER_NAMES]
    assert all(right(lines, made) <= 0.05 for made in said[1:])


async def test_without_tools_an_adapter_answers_in_its_own_words(
    client: openai.AsyncOpenAI, tiny_agents: TinyAgents
) -> None:
    question = tiny_agents.held_out(BASE_SET)[0]["messages"]
    answers = [
        await client.chat.completions.create(model=name, messages=question, temperature=0, max_tokens=MAX_TOKENS)
        for name in (BASE_MODEL, *ADAPTER_NAMES)
    ]
    said = [answer.choices[0].message.content for answer in answers]
    assert len(set(said)) == len(said)
    assert all(answer.choices[0].finish_reason == "stop" for answer in answers)


async def test_a_streamed_call_is_the_plain_one(client: openai.AsyncOpenAI, tiny_agents: TinyAgents) -> None:
    line = tiny_agents.held_out(ADAPTER_NAMES[0])[0]
    asked = {"model": ADAPTER_NAMES[0], "messages": line["messages"], "tools": line["tools"]}
    stream = await client.chat.completions.create(**asked, temperature=0, max_tokens=MAX_TOKENS, stream=True)
    deltas = [delta async for chunk in stream for delta in chunk.choices[0].delta.tool_calls or []]
    functions = [delta.function for delta in deltas if delta.function is not None]
    assert "".join(function.name or "" for function in functions) == line["expected"]["name"]
    assert json.loads("".join(function.arguments or "" for function in functions)) == line["expected"]["arguments"]


def test_the_adapters_pass_the_check_with_the_record_of_their_training(tiny_agents: TinyAgents) -> None:
    folders = list(tiny_agents.adapters.values())
    assert all((folder / "training_record.json").exists() for folder in folders)
    assert check(folders, tiny_agents) == 0


def test_the_check_refuses_each_wrong_export_and_a_merged_model_is_as_right_as_its_adapter(
    tiny_agents: TinyAgents, engine_python: Path, tmp_path: Path
) -> None:
    adapter = ADAPTER_NAMES[0]
    forms = [flag for mistake in MISTAKES for flag in ("--form", mistake)]
    command = [str(engine_python), "-m", "backend.tiny_agents.exports", "--out", str(tmp_path), "--adapter", adapter]
    made = subprocess.run([*command, "--form", "merged", *forms], check=True, capture_output=True, text=True).stdout
    share = re.search(rf"{adapter}/merged: ([\d.]+)% right", made)
    assert share is not None
    assert float(share[1]) >= 95
    assert {path.name for path in (tmp_path / adapter).iterdir()} == {"merged", *MISTAKES}
    passing = [mistake for mistake in MISTAKES if check([tmp_path / adapter / mistake], tiny_agents) == 0]
    assert passing == []
    merged = tmp_path / adapter / "merged"
    assert (merged / "chat_template.jinja").read_text() == (tiny_agents.base / "chat_template.jinja").read_text()


def check(folders: list[Path], agents: TinyAgents) -> object:
    """The exit status of `failsoft backend check`."""
    with pytest.raises(SystemExit) as ended:
        main(["backend", "check", *map(str, folders), "--base", str(agents.base), "--max-lora-rank", "16"])
    return ended.value.code
