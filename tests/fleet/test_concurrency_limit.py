"""The limit on requests in flight: it finds what a box is good for, and nothing that it is told breaks it."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.concurrency_limit import (
    DIP,
    DIP_AFTER,
    DIP_MOST_S,
    INITIAL,
    LEAST,
    LONGEST_REFERENCE_S,
    MIN_SAMPLES,
    MOST,
    WINDOW_S,
    ConcurrencyLimit,
)


def windows(limit: ConcurrencyLimit, ttft_s: float, *, count: int = 1, in_flight: int | None = None) -> None:
    """That many windows of samples alike, as many in flight as the limit allows where nothing else is said."""
    for _ in range(count):
        for step in range(MIN_SAMPLES):
            limit.observe(ttft_s, limit.limit if in_flight is None else in_flight, step * WINDOW_S / (MIN_SAMPLES - 1))


def test_it_starts_generous() -> None:
    limit = ConcurrencyLimit()
    assert limit.limit == INITIAL
    assert limit.admits(INITIAL - 1)
    assert not limit.admits(INITIAL)
    assert limit.reference_s is None


def test_it_falls_while_the_time_to_first_token_is_far_above_what_it_was() -> None:
    limit = ConcurrencyLimit()
    windows(limit, 0.1)
    before = limit.limit
    windows(limit, 2.0, count=6)
    assert limit.limit < before / 3
    windows(limit, 2.0, count=20)
    assert limit.limit < 2 * LEAST


def test_a_time_to_first_token_that_is_tolerable_does_not_lower_it() -> None:
    limit = ConcurrencyLimit()
    windows(limit, 0.1)
    before = limit.limit
    windows(limit, 0.25, count=10)
    assert limit.limit >= before


def test_it_grows_back_once_the_box_is_as_fast_as_it_was() -> None:
    limit = ConcurrencyLimit()
    windows(limit, 0.1)
    windows(limit, 3.0, count=10)
    low = limit.limit
    windows(limit, 0.1, count=15)
    assert limit.limit > low + 30


def test_windows_with_few_in_flight_say_nothing_about_the_limit() -> None:
    limit = ConcurrencyLimit()
    windows(limit, 0.1)
    before = limit.limit
    windows(limit, 5.0, count=10, in_flight=before // 3)
    assert limit.limit == before
    windows(limit, 0.1, count=10, in_flight=before // 3)
    assert limit.limit == before, "nor that it may grow"


def test_too_few_samples_are_no_window() -> None:
    limit = ConcurrencyLimit()
    for step in range(MIN_SAMPLES - 1):
        limit.observe(0.1, 100, step * WINDOW_S)
    assert limit.reference_s is None


def test_one_slow_answer_among_many_moves_nothing() -> None:
    limit = ConcurrencyLimit()
    windows(limit, 0.1)
    before = limit.limit
    for step in range(MIN_SAMPLES):
        limit.observe(60.0 if step == 2 else 0.1, before, step * WINDOW_S / (MIN_SAMPLES - 1))
    assert limit.limit > before


def test_a_box_that_is_slower_for_good_is_not_held_at_the_least_for_ever() -> None:
    limit = ConcurrencyLimit()
    windows(limit, 0.1)
    windows(limit, 0.9, count=100)
    assert limit.limit > 4 * LEAST
    assert limit.reference_s is not None
    assert limit.reference_s > 0.35


def test_a_box_that_is_pressed_for_long_is_measured_anew_at_half_the_limit() -> None:
    limit = ConcurrencyLimit()
    windows(limit, 0.1)
    windows(limit, 0.45, count=DIP_AFTER - 1)
    before = limit.limit
    windows(limit, 0.45)
    assert before < INITIAL * 8
    assert limit.limit == pytest.approx(before * DIP, rel=0.1)
    windows(limit, 0.45, in_flight=before)
    assert limit.reference_s == 0.1, "what was sent before tells nothing of how it is now"
    windows(limit, 0.2)
    assert limit.reference_s == 0.2
    assert limit.limit >= before


def test_a_dip_in_which_too_little_is_sent_is_given_up() -> None:
    limit = ConcurrencyLimit()
    windows(limit, 0.1)
    windows(limit, 0.45, count=DIP_AFTER)
    low = limit.limit
    limit.observe(0.45, 1000, DIP_MOST_S - 0.1)
    assert limit.limit == low
    limit.observe(0.45, 1000, 1 + DIP_MOST_S)
    assert limit.limit > 1.9 * low
    assert limit.reference_s == 0.1


def test_what_a_gateway_meets_that_starts_in_an_overload_is_not_taken_for_the_norm() -> None:
    limit = ConcurrencyLimit()
    windows(limit, 30.0, count=25)
    assert limit.reference_s == LONGEST_REFERENCE_S
    assert limit.limit == LEAST + 1 or limit.limit == LEAST


def test_it_can_be_made_to_start_anew() -> None:
    limit = ConcurrencyLimit(initial=50)
    windows(limit, 0.1)
    windows(limit, 5.0, count=5)
    limit.reset()
    assert limit.limit == 50
    assert limit.reference_s is None


@pytest.mark.parametrize(("least", "initial", "most"), [(0, 5, 10), (6, 5, 10), (1, 11, 10)])
def test_bounds_that_do_not_hold_together_are_refused(least: int, initial: int, most: int) -> None:
    with pytest.raises(ValueError, match="a limit needs"):
        ConcurrencyLimit(initial=initial, least=least, most=most)


NUMBERS = st.floats() | st.floats(0, 10)


@given(st.lists(st.tuples(NUMBERS, st.integers(-5, 2 * MOST), NUMBERS), max_size=200))
def test_it_stays_within_its_bounds_whatever_it_is_told(samples: list[tuple[float, int, float]]) -> None:
    limit = ConcurrencyLimit()
    for ttft_s, in_flight, now in samples:
        limit.observe(ttft_s, in_flight, now)
        assert LEAST <= limit.limit <= MOST
        assert limit.reference_s is None or 0 <= limit.reference_s <= LONGEST_REFERENCE_S


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_it_stays_within_its_bounds_over_many_windows(ttfts: list[float]) -> None:
    limit = ConcurrencyLimit()
    for ttft_s in ttfts:
        windows(limit, ttft_s)
        assert LEAST <= limit.limit <= MOST


@given(st.floats(0.01, 0.5), st.floats(8, 100), st.integers(LEAST, MOST).filter(lambda initial: initial > 5 * LEAST))
def test_it_falls_within_ten_windows_of_a_rise(calm_s: float, factor: float, initial: int) -> None:
    limit = ConcurrencyLimit(initial=initial)
    windows(limit, calm_s)
    before = limit.limit
    windows(limit, max(1.5, calm_s * factor), count=10)
    assert limit.limit < before / 2


@pytest.mark.parametrize("slots", [16, 32, 64])
@pytest.mark.parametrize("initial", [LEAST, INITIAL])
def test_before_a_box_that_queues_it_settles_near_the_boxes_sequence_slots(slots: int, initial: int) -> None:
    limit = ConcurrencyLimit(initial=initial)
    history = closed_loop(limit, slots=slots, seconds=200)
    settled = sorted(history[len(history) // 2 :])
    low, middle, high = (settled[len(settled) * percent // 100] for percent in (10, 50, 99))
    assert slots <= middle <= 1.4 * slots
    assert low >= 0.9 * slots, "but for a dip now and then"
    assert high <= 1.5 * slots


def closed_loop(limit: ConcurrencyLimit, *, slots: int, seconds: float) -> list[int]:
    """The limit over time, before a box that runs ``slots`` requests and lets the rest wait, under endless demand.

    A request takes 0.1 s to its first token once it runs, and 1 to 3 s in all.
    """
    dice = random.Random(7)
    now, in_flight, running = 0.0, 0, 0
    order = 0
    queue: list[tuple[float, int]] = []
    events: list[tuple[float, int, str, float, int]] = []
    history: list[int] = []

    def run(sent_s: float, beside: int) -> None:
        nonlocal running, order
        running += 1
        order += 1
        heapq.heappush(events, (now + 0.1, order, "first", sent_s, beside))
        heapq.heappush(events, (now + dice.uniform(1, 3), order, "end", 0.0, 0))

    while now < seconds:
        while limit.admits(in_flight):
            in_flight += 1
            if running < slots:
                run(now, in_flight)
            else:
                queue.append((now, in_flight))
        now, _, kind, sent_s, beside = heapq.heappop(events)
        if kind == "first":
            limit.observe(now - sent_s, beside, now)
            history.append(limit.limit)
        else:
            running -= 1
            in_flight -= 1
            if queue:
                run(*queue.pop(0))
    return history
