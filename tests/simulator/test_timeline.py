"""An engine over time runs as many steps as there is time for, and steps that are alike may be run as one."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backend.simulator.engine_model import EngineModel
from backend.simulator.pause import Pause
from backend.simulator.timeline import EngineTimeline
from tests.simulator.engine_scripts import DYADIC, Submit, limits, submits

# Off the grid of the steps' times: which of two things at one instant comes first is not what is tested.
gaps = st.integers(1, 200).map(lambda number: number / 512 + 1 / 65536)
events = st.lists(st.tuples(gaps, st.one_of(submits, submits, st.integers(0, 10))), max_size=12)


def drive(
    limits: dict[str, Any], events: list[tuple[float, Submit | int]], *, merged: bool
) -> tuple[dict[str, dict[str, Any]], int]:
    """What became of each request and when, and how many steps came out."""
    timeline = EngineTimeline(EngineModel(DYADIC, **limits), merged=merged)
    fates: dict[str, dict[str, Any]] = {}
    count = 0

    def run_until(now: float) -> None:
        nonlocal count
        while (due := timeline.due) <= now:
            for step in timeline.advance(due):
                count += 1
                for id in step.tokens:
                    fates[id]["tokens"] = fates[id].get("tokens", 0) + step.steps
                for id in step.first_tokens:
                    fates[id]["first"] = step.ended_s
                for id in step.finished:
                    fates[id]["finished"] = step.ended_s
                for adapter in step.swapped_in:
                    fates.setdefault(f"swap of {adapter}", {}).setdefault("at", []).append(step.began_s)

    now = 0.0
    for gap, what in events:
        now += gap
        run_until(now)
        if isinstance(what, Submit):
            id = f"r{len(fates)}"
            fates[id] = {}
            assert timeline.submit(id, what.adapter, what.prompt, what.output, now)
        elif timeline.abort(f"r{what}", now):
            fates[f"r{what}"]["aborted"] = now
    run_until(1e9)
    assert timeline.due == math.inf
    for fate in fates.values():
        if "aborted" in fate:
            # A step that is running when its request is aborted may still count for it, or not.
            fate.pop("tokens", None)
    return fates, count


@given(limits, events)
def test_merged_steps_end_as_single_ones_do(limits: dict[str, Any], events: list[tuple[float, Submit | int]]) -> None:
    singly, _ = drive(limits, events, merged=False)
    merged, _ = drive(limits, events, merged=True)
    assert merged == singly


def test_a_long_answer_that_nobody_disturbs_is_two_steps() -> None:
    fates, count = drive({}, [(0.5, Submit("a", 100, 1000))], merged=True)
    assert fates["r0"]["tokens"] == 1000
    assert count == 2


def test_a_request_that_comes_during_a_step_is_not_in_it() -> None:
    timeline = EngineTimeline(EngineModel(DYADIC, max_loras=1))
    timeline.submit("early", None, 16, 9, 1.0)
    assert timeline.due == 1.0
    assert timeline.advance(1.0) == []
    end = timeline.due
    timeline.submit("late", None, 16, 1, (1.0 + end) / 2)
    (step,) = timeline.advance(end)
    assert (step.began_s, step.tokens) == (1.0, ["early"])
    (step,) = timeline.advance(timeline.due)
    assert step.tokens == ["early", "late"]


def test_an_idle_engine_has_nothing_due_and_begins_when_it_is_asked() -> None:
    timeline = EngineTimeline(EngineModel(DYADIC))
    assert timeline.due == math.inf
    timeline.advance(5.0)
    timeline.submit("it", None, 16, 1, 7.0)
    assert timeline.due == 7.0
    timeline.advance(7.0)
    (step,) = timeline.advance(timeline.due)
    assert (step.began_s, step.finished) == (7.0, ["it"])
    assert timeline.due == math.inf


def test_to_load_an_adapter_holds_up_the_next_step() -> None:
    load_s = DYADIC.disk_load_s + DYADIC.swap_s
    timeline = EngineTimeline(EngineModel(DYADIC, max_loras=2))
    assert timeline.preload("a", 1.0) == 1.0 + load_s
    timeline.submit("it", "a", 16, 5, 1.0)
    assert timeline.due == 1.0 + load_s
    timeline.advance(1.0 + load_s)
    end = timeline.due
    assert timeline.preload("b", 1.0 + load_s) == end + load_s
    assert timeline.due == end + load_s


def test_a_paused_engine_has_nothing_due_until_it_is_resumed() -> None:
    timeline = EngineTimeline(EngineModel(DYADIC))
    timeline.pause(Pause.ALL, 0.0)
    timeline.submit("it", None, 16, 1, 1.0)
    assert timeline.due == math.inf
    timeline.pause(Pause.NO, 9.0)
    assert timeline.due == 9.0
