"""Two boxes that do not say the same: wherever one breaks, its client has the other's answer or an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from tests.dataplane.conftest import ServePlane
from tests.dataplane.plane import ADAPTER
from tests.support.checker import check_stream
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"call": {"name": name, "arguments": arguments}}


SAYS: dict[str, dict[str, Any]] = {
    "prose": {"content": "Sorry, I cannot."},
    "more prose": {"content": "Sorry, I cannot. Ask again."},
    "weather": call("get_weather", '{"numbers": [0, 1]}'),
    "other weather": call("get_weather", '{"numbers": [0], "a": 1}'),
    "nothing at all": call("get_weather", ""),
    "a longer name": call("get_weather_2", '{"numbers": [0, 1]}'),
}
PAIRS = list(permutations(SAYS, 2))
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "get_weather_2")]


@pytest.fixture(scope="module")
def two(session_processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> list[Simulator]:
    """To the prompt ``first/second`` one of them says the first, the other the second."""
    started = []
    for place, name in enumerate("ab"):
        replies: Path = tmp_path_factory.mktemp("replies") / f"{name}.jsonl"
        lines = [{"prompt": "/".join(pair), **SAYS[pair[place]]} for pair in PAIRS]
        replies.write_text("".join(json.dumps(line) + "\n" for line in lines))
        started.append(
            session_processes.box(name=f"says-{name}", adapters=[ADAPTER], replies=replies, ttft_ms=0, itl_ms=4)
        )
    for box in started:
        box.wait_ready()
    return started


@pytest.fixture
def boxes(two: list[Simulator]) -> Iterator[list[Simulator]]:
    yield two
    for box in two:
        box.admin.heal()


def said(answer: Recording) -> tuple[tuple[str, str, str], bool]:
    """Text, the name and the arguments that the client has put together; whether it was told of an error."""
    seen = check_stream(answer)
    # These are no numbered answers: how the events are to look is all that is judged of them.
    assert {code for code in seen.codes if code not in {"text", "short", "gap"}} == set()
    names = [
        (part.get("function") or {}).get("name") or ""
        for one in seen.events
        for choice in one["choices"]
        for part in choice["delta"].get("tool_calls") or ()
    ]
    arguments = seen.choices[0].calls[0] if seen.choices[0].calls else ""
    return (seen.text, "".join(names), arguments), seen.error is not None


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
async def test_after_every_event_a_client_has_one_answer_or_an_error(
    serve: ServePlane, boxes: list[Simulator], pair: tuple[str, str]
) -> None:
    ask = {"text": "/".join(pair), "tools": TOOLS}
    alone = [said(await RawClient(box.url).chat(ADAPTER, **ask))[0] for box in boxes]
    assert alone[0] != alone[1]
    failed = 0
    for cut in range(2, 8):
        # A plane of its own each time: no box is left out for what it did before.
        plane = await serve(boxes, on_broken_stream="resume")
        at = (await plane.raw().chat(ADAPTER, **ask)).headers["x-failsoft-served-by"]
        home = 0 if at == "box:a" else 1
        boxes[home].admin.fault("reset_mid_stream", after_chunks=cut)
        has, told_of_it = said(await plane.raw().chat(ADAPTER, **ask))
        boxes[home].admin.heal()
        first, second = alone[home], alone[1 - home]
        if not told_of_it:
            assert has == second or (has == first and not plane.metrics.stream_resumes.value("acme", "resumed"))
            continue
        failed += 1
        assert any(
            all(part.startswith(begun) for part, begun in zip(answer, has, strict=True)) for answer in (first, second)
        ), "of no two answers"
        assert has[1] in ("", first[1]), "a name is whole"
    extends = first[1] == second[1] and all(new.startswith(old) for old, new in zip(first, second, strict=True))
    assert bool(failed) != extends
