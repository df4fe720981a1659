"""The main job: the engine of one box is killed, then the whole other box, while twenty agents ask; none is let down.

Killing is SIGKILL. The agents are the unmodified OpenAI SDK without its retries, half of them streaming; five more read
the bytes of their streams themselves, as the SDK takes a stream that was cut off for a complete one; and one for each
customer asks for answers so long that they are cut off for certain.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.complaints import all_complaints
from tests.engine.crowd import Crowd, Kind, Story
from tests.engine.fleet import CUSTOMERS, HEALING_S, EngineFleet

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

AGENTS: tuple[Kind, ...] = ("plain", "stream") * 10
WATCHERS: tuple[Kind, ...] = ("raw stream",) * 5
CROWDED = CUSTOMERS[:4]
LONG: tuple[Kind, ...] = ("long stream",) * len(CROWDED)


async def test_twenty_agents_go_on_while_the_boxes_die_and_come_back(engine: EngineFleet) -> None:
    crowd = Crowd(engine, AGENTS + LONG + WATCHERS, CROWDED)
    crowd.start()
    try:
        await crowd.until(lambda stories: sum(story.over for story in stories) >= 30)

        await crowd.until(lambda _: bool(crowd.just_begun("box-a")))
        engine.boxes["box-a"].kill_engine()
        engine_died, cut_off = len(crowd.stories), crowd.just_begun("box-a")
        await crowd.until(lambda stories: answered(stories[engine_died:], "box:box-b") >= 20)

        await crowd.until(lambda _: bool(crowd.just_begun("box-b")))
        one_down = [story for story in crowd.stories[engine_died:] if story.over]
        engine.boxes["box-b"].kill()
        box_died = len(crowd.stories)
        cut_off += crowd.just_begun("box-b")
        await crowd.until(lambda stories: answered(stories[box_died:], "provider:hosted") >= 40)

        await asyncio.to_thread(engine.boxes["box-a"].wait_until_ended)
        engine.boxes["box-a"].start()
        await asyncio.to_thread(engine.boxes["box-a"].wait_until_ready)
        is_back = len(crowd.stories)
        await crowd.until(lambda stories: is_home(stories[is_back:]), within_s=HEALING_S)
        await crowd.leave()
    finally:
        await crowd.close()

    assert all_complaints(crowd.stories, engine) == []
    healthy, both_down = crowd.stories[:engine_died], crowd.stories[box_died:is_back]
    assert all(story.own for story in healthy)
    assert all(story.own for story in one_down), "one box was enough for everybody"
    assert any(story.degraded for story in both_down if story.kind == "plain")
    assert any(story.degraded for story in both_down if story.kind == "stream")
    assert len(cut_off) >= 2
    assert all(story.error is not None for story in cut_off), "no part of an answer is taken for the whole"


def answered(stories: list[Story], by: str) -> int:
    return sum(story.over and story.served_by == by for story in stories)


def is_home(stories: list[Story]) -> bool:
    """Whether each customer's latest answer is its own adapter's."""
    latest = {story.customer.name: story.own for story in stories if story.over}
    return len(latest) == len(CROWDED) and all(latest.values())
