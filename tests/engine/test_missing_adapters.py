"""An adapter that policies name and a box does not have: the box's fault, and no other adapter's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.engine.fleet import CUSTOMERS, GENERIC_MODEL, EngineFleet

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

HOOLI, STARK = CUSTOMERS[4:6]


@pytest.fixture
async def favourite(engine: EngineFleet) -> AsyncIterator[str]:
    """The box that Hooli is answered by first. Afterwards both boxes have the adapter again."""
    answer = await engine.ask(HOOLI, max_tokens=1)
    yield answer.headers["x-failsoft-served-by"].removeprefix("box:")
    for box in engine.boxes:
        if HOOLI.adapter not in await engine.models(box):
            await engine.load_adapter(box, HOOLI)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_the_other_box_answers_when_one_lacks_the_adapter(
    engine: EngineFleet, favourite: str, stream: bool
) -> None:
    await engine.unload_adapter(favourite, HOOLI)
    answer = await engine.ask(HOOLI, stream=stream)
    seen = engine.judge(answer, HOOLI)
    assert seen.violations == []
    assert seen.degraded is None
    assert seen.text == engine.own_answers[HOOLI.adapter]
    assert answer.headers["x-failsoft-served-by"] == f"box:{other(engine, favourite)}"


async def test_no_box_has_it_and_the_provider_answers_for_that_adapter_alone(
    engine: EngineFleet, favourite: str
) -> None:
    for box in engine.boxes:
        await engine.unload_adapter(box, HOOLI)
    answer = await engine.ask(HOOLI)
    assert engine.judge(answer, HOOLI).violations == []
    assert answer.headers["x-failsoft-degraded"] == "adapter_unavailable"
    assert answer.json()["degraded"] == {
        "reason": "adapter_unavailable",
        "requested_model": HOOLI.adapter,
        "served_model": GENERIC_MODEL,
        "served_by": "provider:hosted",
    }
    neighbour = await engine.ask(STARK)
    assert engine.judge(neighbour, STARK).text == engine.own_answers[STARK.adapter]
    assert "x-failsoft-degraded" not in neighbour.headers


def other(engine: EngineFleet, box: str) -> str:
    [name] = set(engine.boxes) - {box}
    return name
