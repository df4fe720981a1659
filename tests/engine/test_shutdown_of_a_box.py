"""SIGTERM of a box. What runs then ends with `finish_reason: "abort"` and status 200, or, as often as not, never.

vLLM kills its engine at once; whether the engine's aborts come out before that is a race. When they do not, every open
request stays silent until its client leaves, while new connections are refused.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.complaints import all_complaints
from tests.engine.crowd import Crowd, Kind
from tests.engine.fleet import CUSTOMERS, EngineFleet

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

AGENTS: tuple[Kind, ...] = ("plain", "stream", "raw stream") * 4
ASKED = CUSTOMERS[:4]
LONG: tuple[Kind, ...] = ("long stream",) * len(ASKED)


async def test_no_agent_is_shown_an_abort_or_left_waiting(engine: EngineFleet) -> None:
    crowd = Crowd(engine, AGENTS + LONG, ASKED)
    crowd.start()
    try:
        await crowd.until(lambda _: bool(crowd.just_begun("box-a")))
        engine.boxes["box-a"].terminate()
        before, interrupted = len(crowd.stories), crowd.just_begun("box-a")
        await asyncio.to_thread(engine.boxes["box-a"].wait_until_ended, 60)
        await crowd.until(lambda stories: sum(story.over for story in stories[before:]) >= len(AGENTS + LONG))
        await crowd.leave()
    finally:
        await crowd.close()

    assert all_complaints(crowd.stories, engine) == []
    assert all(story.own for story in crowd.stories), "the other box was enough for everybody"
    assert all(story.error is not None for story in interrupted), "nobody takes a part for the whole"
