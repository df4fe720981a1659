"""Many agents that ask again and again, and the history of all that they were given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import openai

from gateway.tasks import TaskSet
from tests.engine.fleet import LONG_ANSWER_TOKENS, Customer, EngineFleet, request
from tests.support.raw_client import Recording

Kind = Literal["plain", "stream", "long stream", "raw stream"]
PAUSE_S = 0.25
"""Between two questions of one agent: the crowd shares its cores with the engines."""


@dataclass(slots=True)
class Story:
    """One request of one agent, from its side. ``committed``: content came. ``over``: nothing more will come."""

    customer: Customer
    kind: Kind
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    finish: str | None = None
    degraded: dict[str, Any] | None = None
    model: str | None = None
    committed: bool = False
    error: Exception | None = None
    recording: Recording | None = None
    over: bool = False

    @property
    def served_by(self) -> str:
        """Who answered, as the header has it; empty while there is no header."""
        return self.headers.get("x-failsoft-served-by", "")

    @property
    def own(self) -> bool:
        """Whether the customer's own adapter answered."""
        return self.served_by.startswith("box:")


class Crowd:
    """One agent for each of ``kinds``, the customers taking turns."""

    def __init__(self, fleet: EngineFleet, kinds: tuple[Kind, ...], customers: tuple[Customer, ...]) -> None:
        self.stories: list[Story] = []
        self._fleet = fleet
        self._agents = [(customers[i % len(customers)], kind) for i, kind in enumerate(kinds)]
        self._tasks = TaskSet()
        self._leaving = asyncio.Event()
        self._news = asyncio.Condition()

    def start(self) -> None:
        """Let all of them begin."""
        for number, (customer, kind) in enumerate(self._agents):
            self._tasks.spawn(self._live(customer, kind), name=f"agent {number}, {kind}")

    async def leave(self) -> None:
        """Let each finish what it is at, and wait for that."""
        self._leaving.set()
        await self.until(lambda stories: all(story.over for story in stories))
        await self._tasks.close()

    async def close(self) -> None:
        """End all of them where they are."""
        await self._tasks.close()

    async def until(self, holds: Callable[[list[Story]], bool], *, within_s: float = 60.0) -> None:
        """Wait until the stories are such. Raises TimeoutError."""
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: holds(self.stories))

    def just_begun(self, box: str) -> list[Story]:
        """Long streams of that box of which most is still to come: whoever kills it now breaks them."""
        return [
            story
            for story in self.stories
            if story.kind == "long stream" and story.committed and not story.over and story.served_by == f"box:{box}"
            if len(story.text) < len(self._fleet.own_answers[story.customer.adapter])
        ]

    async def _live(self, customer: Customer, kind: Kind) -> None:
        client = self._fleet.agent(customer)
        ask = {
            "plain": self._plain,
            "stream": self._stream,
            "long stream": self._long_stream,
            "raw stream": self._raw_stream,
        }[kind]
        while not self._leaving.is_set():
            story = Story(customer, kind)
            self.stories.append(story)
            try:
                await ask(client, story)
            except openai.OpenAIError as error:
                story.error = error
            story.over = True
            await self._tell()
            await asyncio.sleep(PAUSE_S)

    async def _plain(self, client: openai.AsyncOpenAI, story: Story) -> None:
        raw = await client.chat.completions.with_raw_response.create(**request(story.customer))
        answer = raw.parse()
        story.headers, story.model, story.committed = raw.headers, answer.model, True
        story.text, story.finish = answer.choices[0].message.content or "", answer.choices[0].finish_reason
        story.degraded = (answer.model_extra or {}).get("degraded")

    async def _long_stream(self, client: openai.AsyncOpenAI, story: Story) -> None:
        await self._stream(client, story, max_tokens=LONG_ANSWER_TOKENS)

    async def _stream(self, client: openai.AsyncOpenAI, story: Story, **fields: Any) -> None:
        raw = await client.chat.completions.with_raw_response.create(**request(story.customer, **fields), stream=True)
        story.headers = raw.headers
        first = True
        async for chunk in raw.parse():
            if first:
                story.degraded, story.model = (chunk.model_extra or {}).get("degraded"), chunk.model
                first = False
            for choice in chunk.choices:
                story.text += choice.delta.content or ""
                story.finish = choice.finish_reason or story.finish
            if story.text and not story.committed:
                story.committed = True
                await self._tell()

    async def _raw_stream(self, client: openai.AsyncOpenAI, story: Story) -> None:
        story.recording = await self._fleet.ask(story.customer, stream=True)
        story.headers = story.recording.headers
        story.committed = story.recording.status == 200

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
