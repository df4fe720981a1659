"""The engine of one of two boxes is killed under twenty streams: each goes on at the other box, and reads as if nothing
had happened. Greedy answers in fp32 do not depend on what else is in the batch, so that the words can be compared."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
import pytest

from backend.launch import VllmBox
from tests.engine.conftest import start_gateway
from tests.engine.fleet import CUSTOMERS, Customer, EngineFleet, request, write_policies
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

STREAMS: Final = 20
TOKENS: Final = 300
HEARD: Final = 5
"""Pieces after which a stream is well under way, and far from its end."""


@dataclass
class Story:
    """One stream, as its agent heard it."""

    customer: Customer
    question: dict[str, Any]
    text: str = ""
    pieces: int = 0
    finish: str | None = None
    ids: set[str] = field(default_factory=set)
    served_by: str = ""
    degraded: bool = False


@pytest.fixture
def url(engine: EngineFleet, provider: Simulator, processes: Processes, tmp_path: Path) -> str:
    """A gateway that has streams go on, which is the default."""
    (tmp_path / "policies").mkdir()
    write_policies(tmp_path / "policies", engine.boxes, provider.url)
    defaults = tmp_path / "policies" / "defaults.yaml"
    defaults.write_text(defaults.read_text().replace("on_broken_stream: error", "on_broken_stream: resume"))
    return start_gateway(processes, tmp_path / "policies", tmp_path / "state")


def questions() -> list[tuple[Customer, dict[str, Any]]]:
    return [
        (
            customer,
            request(
                customer,
                messages=[{"role": "user", "content": f"Where is my order {number}?"}],
                max_tokens=TOKENS,
                ignore_eos=True,
            ),
        )
        for number in range(STREAMS)
        for customer in [CUSTOMERS[number % 4]]
    ]


async def listen(url: str, story: Story) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key=story.customer.key, max_retries=0, timeout=120.0
    ) as sdk:
        extra = {"ignore_eos": story.question["ignore_eos"]}
        fields = {name: value for name, value in story.question.items() if name != "ignore_eos"}
        raw = await sdk.chat.completions.with_raw_response.create(**fields, stream=True, extra_body=extra)
        story.served_by = raw.headers["x-failsoft-served-by"]
        story.degraded = "x-failsoft-degraded" in raw.headers
        async for chunk in raw.parse():
            story.ids.add(chunk.id)
            for choice in chunk.choices:
                story.text += choice.delta.content or ""
                story.pieces += 1
                story.finish = choice.finish_reason or story.finish


async def undisturbed(box: VllmBox, question: dict[str, Any]) -> str:
    async with httpx2.AsyncClient(base_url=box.url, timeout=120.0, trust_env=False) as client:
        answer = (await client.post("/v1/chat/completions", json=question)).raise_for_status().json()
    return str(answer["choices"][0]["message"]["content"])


async def test_every_stream_ends_as_it_would_have(engine: EngineFleet, url: str) -> None:
    expected = [await undisturbed(engine.boxes["box-b"], question) for _, question in questions()]
    stories = [Story(customer, question) for customer, question in questions()]
    async with asyncio.TaskGroup() as group:
        for story in stories:
            group.create_task(listen(url, story))
        await eventually(lambda: all(story.pieces >= HEARD for story in stories), within_s=90.0)
        # Whichever box has more of them, as a fresh gateway may have found one before the other.
        served = Counter(story.served_by.removeprefix("box:") for story in stories)
        victim = served.most_common(1)[0][0]
        under_way = [story for story in stories if story.served_by == f"box:{victim}" and story.finish is None]
        engine.boxes[victim].kill_engine()
        # The server outlives its engine by seconds: the next test is to find it gone, and start it.
        await asyncio.to_thread(engine.boxes[victim].wait_until_ended)
    assert under_way, "all streams had ended before the engine was killed"
    assert [story.finish for story in stories] == ["length"] * STREAMS
    assert not any(story.degraded for story in stories)
    assert all(len(story.ids) == 1 for story in stories), "an answer has one id"
    differing = [(story.text, text) for story, text in zip(stories, expected, strict=True) if story.text != text]
    print(f"{len(under_way)} of {STREAMS} streams went on elsewhere, {len(differing)} of all read otherwise")
    assert differing == []
