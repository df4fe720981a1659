"""The time to first token that a request would see: what counts, what does not, and what is not known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.engine_pace import EnginePace
from gateway.fleet.estimate import (
    ASSUMED_DURATION_S,
    ASSUMED_LOAD_S,
    ASSUMED_STEP_S,
    KV_FULL,
    STALE_S,
    Estimate,
    OwnLoad,
    estimate,
)
from gateway.fleet.ttft import LONGEST_S, Ttft

NOW = 100.0
IDLE = OwnLoad(silent=0, silent_since_reading=0, in_flight={}, max_loras=8)
SEEN = Ttft(floor_s=0.1, recent_s=0.15, per_silent_s=0.02)
QUIET = EngineReading(
    NOW - 0.5,
    running=4,
    waiting_capacity=0,
    waiting_deferred=0,
    kv_cache_usage=0.3,
    preemptions_total=0,
    prompt_tokens_total=1000,
    generation_tokens_total=1000,
    requests_finished_total=50,
    ttft_sum_s=10,
    ttft_count=50,
)


def asked(
    adapter: str | None = "acme_v3",
    *,
    resident: bool = True,
    own: OwnLoad = IDLE,
    ttft: Ttft = SEEN,
    reading: EngineReading | None = QUIET,
    pace: EnginePace = EnginePace(),  # noqa: B008
    now: float = NOW,
) -> Estimate:
    return estimate(adapter, resident=resident, own=own, ttft=ttft, reading=reading, pace=pace, now=now)


def seconds(found: Estimate) -> float:
    assert found.ttft_s is not None
    return found.ttft_s


def test_an_idle_box_gives_what_it_has_lately_shown() -> None:
    assert asked().ttft_s == 0.15


def test_nothing_known_is_no_estimate_and_so_is_a_quiet_box_that_has_served_nobody() -> None:
    assert asked(reading=None, ttft=Ttft()).ttft_s is None
    fresh = EngineReading(NOW, running=0, waiting_capacity=0, waiting_deferred=0, kv_cache_usage=0, ttft_count=0)
    assert asked(reading=fresh, ttft=Ttft()).ttft_s is None


def test_the_engines_own_mean_stands_in_where_the_gateway_has_seen_nothing() -> None:
    assert asked(ttft=Ttft()).ttft_s == 10 / 50
    assert asked(ttft=Ttft(), pace=EnginePace(ttft_s=0.4)).ttft_s == 0.4


def test_a_queue_takes_its_length_over_the_rate_at_which_it_has_been_moving() -> None:
    queue = replace(QUIET, waiting_capacity=12)
    assert asked(reading=queue, pace=EnginePace(first_tokens_per_s=4)).ttft_s == pytest.approx(12 / 4 + 0.1)


def test_what_was_sent_since_the_reading_stands_in_the_queue_too() -> None:
    own = replace(IDLE, silent=3, silent_since_reading=2)
    queue = replace(QUIET, waiting_capacity=12)
    assert asked(own=own, reading=queue, pace=EnginePace(first_tokens_per_s=4)).ttft_s == pytest.approx(14 / 4 + 0.1)


def test_what_was_sent_to_a_box_without_a_queue_goes_by_what_silent_requests_add() -> None:
    own = replace(IDLE, silent=5, silent_since_reading=5)
    assert asked(own=own, pace=EnginePace(first_tokens_per_s=0.4)).ttft_s == pytest.approx(5 * 0.02 + 0.1)


def test_a_queue_of_unknown_pace_moves_at_what_one_more_has_been_seen_to_add() -> None:
    queue = replace(QUIET, waiting_capacity=50)
    assert asked(reading=queue).ttft_s == pytest.approx(50 * 0.02 + 0.1)
    nothing_seen = replace(queue, ttft_count=0)
    assert asked(reading=nothing_seen, ttft=Ttft()).ttft_s == pytest.approx(50 * ASSUMED_STEP_S)


def test_stale_metrics_are_unknown_and_the_gateways_own_counts_decide() -> None:
    queue = replace(QUIET, waiting_capacity=500, at_s=NOW - STALE_S - 0.1)
    assert asked(reading=queue, pace=EnginePace(first_tokens_per_s=4, stalled_s=9)).ttft_s == 0.15
    own = replace(IDLE, silent=200, silent_since_reading=0)
    assert asked(own=own, reading=queue).ttft_s == pytest.approx(200 * 0.02 + 0.1)
    assert asked(own=own, reading=None, ttft=Ttft()).ttft_s is None, "nothing was ever seen of the box"
    assert dict(asked(reading=queue).parts)["reading_age_s"] == pytest.approx(STALE_S + 0.1)


def test_an_old_box_without_the_gauge_is_judged_by_the_gateways_own_counts() -> None:
    own = replace(IDLE, silent=100)
    blind = EngineReading(NOW, running=3)
    assert asked(own=own, reading=blind).ttft_s == pytest.approx(100 * 0.02 + 0.1)


def test_requests_that_wait_for_a_slot_count_for_whoever_needs_one_too() -> None:
    deferred = replace(QUIET, waiting_deferred=20, running=20)
    pace = EnginePace(first_tokens_per_s=10, finishes_per_s=2)
    assert asked("globex_v1", reading=deferred, pace=pace).ttft_s == pytest.approx(20 / 2 + 0.1)
    hot = replace(IDLE, in_flight={"acme_v3": 1})
    assert asked("acme_v3", own=hot, reading=deferred, pace=pace).ttft_s == 0.15
    assert asked(None, reading=deferred, pace=pace).ttft_s == 0.15, "the base needs no slot"


def test_where_others_hold_all_slots_the_first_has_to_fall_idle() -> None:
    pace = EnginePace(duration_s=4)
    flows = replace(IDLE, in_flight={"acme_v3": 3, "globex_v1": 3}, max_loras=2)
    busy_s = 4 * (math.e**3 - 1) / 3
    assert asked("initech_v1", own=flows, pace=pace).ttft_s == pytest.approx(busy_s / 2 + 0.1)
    assert asked("acme_v3", own=flows, pace=pace).ttft_s == 0.15
    assert asked("initech_v1", own=replace(flows, max_loras=3), pace=pace).ttft_s == 0.15
    single = replace(IDLE, in_flight={"acme_v3": 1}, max_loras=1)
    assert asked("globex_v1", own=single).ttft_s == pytest.approx(ASSUMED_DURATION_S * (math.e - 1) + 0.1)


def test_with_more_adapters_than_slots_those_with_the_most_in_flight_hold_them() -> None:
    own = replace(IDLE, in_flight={"acme_v3": 3, "globex_v1": 2, "initech_v1": 1}, max_loras=2)
    assert asked("acme_v3", own=own).ttft_s == 0.15
    assert asked("globex_v1", own=own).ttft_s == 0.15
    assert seconds(asked("initech_v1", own=own)) > 3
    assert seconds(asked("umbrella_v1", own=own)) > seconds(asked("initech_v1", own=own))


def test_an_adapter_that_is_not_resident_has_to_be_loaded() -> None:
    calm = Ttft(floor_s=0.1, recent_s=0.1)
    assert asked(resident=False, ttft=calm).ttft_s == pytest.approx(0.1 + ASSUMED_LOAD_S)
    assert asked(None, resident=False, ttft=calm).ttft_s == 0.1


def test_a_full_cache_lets_nobody_in_before_somebody_ends() -> None:
    full = replace(QUIET, waiting_capacity=3, kv_cache_usage=KV_FULL)
    pace = EnginePace(first_tokens_per_s=10, finishes_per_s=2)
    assert asked(reading=full, pace=pace).ttft_s == pytest.approx(4 / 2 + 0.1)
    assert asked(reading=replace(full, kv_cache_usage=0.9), pace=pace).ttft_s == pytest.approx(3 / 10 + 0.1)
    assert asked(reading=replace(full, waiting_capacity=0), pace=pace).ttft_s == 0.15, "full but nobody waits"


def test_preemptions_say_that_the_cache_is_too_small_for_what_runs() -> None:
    pace = EnginePace(finishes_per_s=2, preemptions_per_s=0.5)
    assert asked(pace=pace).ttft_s == pytest.approx(1 / 2 + 0.1)


def test_an_engine_that_stands_still_gives_no_first_token_at_once() -> None:
    assert asked(pace=EnginePace(stalled_s=7)).ttft_s == 7


def test_a_box_that_sleeps_is_too_late_for_everybody() -> None:
    assert asked(reading=replace(QUIET, asleep=True)).ttft_s == LONGEST_S


def test_every_number_that_took_part_is_named() -> None:
    pace = EnginePace(first_tokens_per_s=4, finishes_per_s=2, duration_s=4)
    own = OwnLoad(silent=2, silent_since_reading=1, in_flight={"globex_v1": 2}, max_loras=1)
    parts = dict(asked(resident=False, own=own, reading=replace(QUIET, waiting_capacity=12), pace=pace).parts)
    total_s = parts["ahead_s"] + parts["slot_s"] + parts["load_s"] + parts["base_s"]
    found = asked(resident=False, own=own, reading=replace(QUIET, waiting_capacity=12), pace=pace)
    assert found.ttft_s == pytest.approx(total_s)
    assert parts["waiting"] == 12
    assert parts["first_token_each_s"] == 0.25


# Whatever is put in.

SOME = st.none() | st.floats(0, 1e6)
COUNT = st.none() | st.integers(0, 10_000).map(float)
POSITIVE = st.none() | st.floats(1e-4, 1e5)
READINGS = st.builds(
    EngineReading,
    at_s=st.floats(NOW - 5, NOW),
    running=COUNT,
    waiting_capacity=COUNT,
    waiting_deferred=COUNT,
    kv_cache_usage=st.none() | st.floats(0, 1),
    ttft_sum_s=SOME,
    ttft_count=COUNT,
    asleep=st.just(False),
)
PACES = st.builds(
    EnginePace,
    first_tokens_per_s=POSITIVE,
    finishes_per_s=POSITIVE,
    preemptions_per_s=SOME,
    duration_s=POSITIVE,
    ttft_s=SOME,
    stalled_s=st.floats(0, 1e6),
)
TTFTS = st.none() | st.tuples(st.floats(0, 100), st.floats(0, 100), st.none() | st.floats(0, 100))
ADAPTERS = st.sampled_from(["a", "b", "c", "d", "e"])
LOADS = st.builds(
    OwnLoad,
    silent=st.integers(0, 1000),
    silent_since_reading=st.integers(0, 1000),
    in_flight=st.dictionaries(ADAPTERS, st.integers(0, 50)),
    max_loras=st.integers(1, 4),
)


def ttft_of(numbers: tuple[float, float, float | None] | None) -> Ttft:
    return Ttft() if numbers is None else Ttft(numbers[0], numbers[0] + numbers[1], numbers[2])


def no_lower(before: Estimate, after: Estimate) -> bool:
    """No estimate is the lowest: the box is asked."""
    if before.ttft_s is None:
        return True
    return after.ttft_s is not None and after.ttft_s >= before.ttft_s - 1e-9


def plus(value: float | None, more: float) -> float:
    return (value or 0.0) + more


@given(st.none() | ADAPTERS, st.booleans(), LOADS, TTFTS, st.none() | READINGS, PACES)
def test_an_estimate_is_a_finite_number_of_at_least_zero(
    adapter: str | None,
    resident: bool,
    own: OwnLoad,
    numbers: tuple[float, float, float | None] | None,
    reading: EngineReading | None,
    pace: EnginePace,
) -> None:
    found = asked(adapter, resident=resident, own=own, ttft=ttft_of(numbers), reading=reading, pace=pace)
    assert found.ttft_s is None or 0 <= found.ttft_s <= LONGEST_S
    assert all(math.isfinite(value) for _, value in found.parts)
    assert len({name for name, _ in found.parts}) == len(found.parts)


@given(st.none() | ADAPTERS, LOADS, TTFTS, READINGS, PACES, st.integers(1, 100))
def test_more_that_waits_never_lowers_it(
    adapter: str | None,
    own: OwnLoad,
    numbers: tuple[float, float, float | None] | None,
    reading: EngineReading,
    pace: EnginePace,
    more: int,
) -> None:
    ttft = ttft_of(numbers)
    before = asked(adapter, own=own, ttft=ttft, reading=reading, pace=pace)
    for worse in (
        replace(reading, waiting_capacity=plus(reading.waiting_capacity, more)),
        replace(reading, waiting_deferred=plus(reading.waiting_deferred, more)),
        replace(reading, kv_cache_usage=min(1.0, plus(reading.kv_cache_usage, more / 100))),
    ):
        assert no_lower(before, asked(adapter, own=own, ttft=ttft, reading=worse, pace=pace))


@given(st.none() | ADAPTERS, LOADS, TTFTS, st.none() | READINGS, PACES, st.integers(1, 100), ADAPTERS)
def test_more_of_the_gateways_own_never_lowers_it(
    adapter: str | None,
    own: OwnLoad,
    numbers: tuple[float, float, float | None] | None,
    reading: EngineReading | None,
    pace: EnginePace,
    more: int,
    other: str,
) -> None:
    ttft = ttft_of(numbers)
    before = asked(adapter, own=own, ttft=ttft, reading=reading, pace=pace)
    worse = [
        replace(own, silent=own.silent + more),
        replace(own, silent=own.silent + more, silent_since_reading=own.silent_since_reading + more),
    ]
    if other != adapter:
        # More of its own adapter may well lower it: a slot is held then.
        worse.append(replace(own, in_flight={**own.in_flight, other: own.in_flight.get(other, 0) + more}))
    for load in worse:
        assert no_lower(before, asked(adapter, own=load, ttft=ttft, reading=reading, pace=pace))


@given(st.none() | ADAPTERS, LOADS, TTFTS, READINGS, PACES, st.floats(1, 10))
def test_a_slower_pace_never_lowers_it(
    adapter: str | None,
    own: OwnLoad,
    numbers: tuple[float, float, float | None] | None,
    reading: EngineReading,
    pace: EnginePace,
    factor: float,
) -> None:
    ttft = ttft_of(numbers)
    before = asked(adapter, own=own, ttft=ttft, reading=reading, pace=pace)
    slower = [replace(pace, stalled_s=pace.stalled_s * factor)]
    slower.append(replace(pace, preemptions_per_s=plus(pace.preemptions_per_s, factor)))
    if pace.first_tokens_per_s is not None:
        slower.append(replace(pace, first_tokens_per_s=pace.first_tokens_per_s / factor))
    if pace.finishes_per_s is not None:
        slower.append(replace(pace, finishes_per_s=pace.finishes_per_s / factor))
    if pace.duration_s is not None:
        slower.append(replace(pace, duration_s=pace.duration_s * factor))
    for worse in slower:
        assert no_lower(before, asked(adapter, own=own, ttft=ttft, reading=reading, pace=worse))
