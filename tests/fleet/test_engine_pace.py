"""How fast an engine has been: rates from its readings, and none where the readings do not tell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.engine_pace import WINDOW_S, EngineHistory, EnginePace


def reading(
    at_s: float, *, running: float = 0, waiting: float = 0, first_tokens: float = 0, finished: float = 0, **more: float
) -> EngineReading:
    counters = {"generation_tokens_total": 100 * at_s, "prompt_tokens_total": 0.0, "preemptions_total": 0.0}
    counters |= {"ttft_sum_s": 0.5 * first_tokens, "waiting_deferred": 0.0}
    return EngineReading(
        at_s,
        running=running,
        waiting_capacity=waiting,
        ttft_count=first_tokens,
        requests_finished_total=finished,
        **(counters | more),  # type: ignore[arg-type]
    )


def pace(*readings: EngineReading) -> EnginePace:
    history = EngineHistory()
    for item in readings:
        history.add(item)
    return history.pace


def test_one_reading_has_no_pace() -> None:
    assert pace(reading(1, running=3, waiting=2)) == EnginePace()


def test_first_tokens_are_counted_while_requests_wait_and_not_otherwise() -> None:
    idle = pace(reading(1, running=1), reading(2, running=1, first_tokens=1), reading(3, running=1, first_tokens=2))
    assert idle.first_tokens_per_s is None, "so it says how much it was asked, not what it can do"
    queued = pace(
        reading(1),
        reading(2, first_tokens=1, waiting=5),
        reading(3, first_tokens=9, waiting=9),
        reading(4, first_tokens=17, waiting=3),
    )
    assert queued.first_tokens_per_s == 8


def test_a_queue_that_does_not_move_is_the_slower_the_longer_it_stands() -> None:
    stuck = [reading(at, waiting=20, running=20, first_tokens=22) for at in range(1, 6)]
    assert pace(*stuck[:2]).first_tokens_per_s == 1
    assert pace(*stuck).first_tokens_per_s == 0.25


def test_a_queue_for_lora_slots_says_nothing_about_how_fast_first_tokens_come() -> None:
    deferred = [reading(at, running=9, first_tokens=9, waiting_deferred=20.0) for at in range(1, 6)]
    assert pace(*deferred).first_tokens_per_s is None


def test_the_duration_of_a_request_follows_from_how_many_run_and_end() -> None:
    found = pace(*(reading(at, running=8, finished=2 * at, first_tokens=2 * at) for at in range(1, 6)))
    assert found.finishes_per_s == 2
    assert found.duration_s == 4
    assert found.ttft_s == 0.5


def test_preemptions_are_a_rate_too() -> None:
    assert pace(reading(1), reading(3, preemptions_total=4.0)).preemptions_per_s == 2


def test_old_readings_are_forgotten() -> None:
    history = EngineHistory()
    for at in range(1, 40):
        history.add(reading(at, running=1, finished=1 if at > 20 else 0))
    assert history.pace.finishes_per_s == 1 / WINDOW_S, "none in the window"
    assert history.pace.duration_s is None


def test_a_box_that_started_anew_has_no_past() -> None:
    history = EngineHistory()
    history.add(reading(1, running=5, first_tokens=500, finished=480))
    history.add(reading(2, running=5, first_tokens=3, finished=1))
    assert history.pace == EnginePace()
    assert history.latest is not None
    assert history.latest.at_s == 2


def test_a_reading_that_is_hardly_younger_is_dropped() -> None:
    history = EngineHistory()
    history.add(reading(2, running=5))
    history.add(reading(2.001, running=6))
    history.add(reading(1, running=6))
    assert history.latest == reading(2, running=5)


def test_an_engine_with_work_that_stands_still_is_seen_to() -> None:
    history = EngineHistory()
    for at in range(1, 31):
        history.add(reading(at, running=4, generation_tokens_total=77))
    assert history.pace.stalled_s == 29, "longer than rates look back"
    history.add(reading(31, running=4, generation_tokens_total=78))
    assert history.pace.stalled_s == 0
    for at in range(32, 40):
        history.add(reading(at, generation_tokens_total=78))
    assert history.pace.stalled_s == 0, "it has nothing to do"


COUNTS = st.none() | st.integers(0, 50).map(float)
READINGS = st.builds(
    EngineReading,
    at_s=st.floats(0, 100),
    running=COUNTS,
    waiting_capacity=COUNTS,
    waiting_deferred=COUNTS,
    kv_cache_usage=st.none() | st.floats(0, 1),
    preemptions_total=COUNTS,
    prompt_tokens_total=COUNTS,
    generation_tokens_total=COUNTS,
    requests_finished_total=COUNTS,
    ttft_sum_s=COUNTS,
    ttft_count=COUNTS,
)


@given(st.lists(READINGS, max_size=20))
def test_rates_are_numbers_above_zero_whatever_is_read(readings: list[EngineReading]) -> None:
    found = pace(*readings)
    for value in (found.first_tokens_per_s, found.finishes_per_s, found.duration_s):
        assert value is None or 0 < value < float("inf")
    for value in (found.preemptions_per_s, found.ttft_s, found.stalled_s):
        assert value is None or 0 <= value < float("inf")
