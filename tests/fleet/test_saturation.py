"""Saturation: entered at once, left when the estimate has been low for a while, and no flapping in between."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.saturation import DWELL_S, LEAVE_SHARE, Saturation

BUDGET_S = 2.0


def run(*steps: tuple[float, float | None]) -> list[bool]:
    """Whether it is saturated after each (time, estimate)."""
    state, found = Saturation(), []
    for now, estimate_s in steps:
        state = state.after(estimate_s, BUDGET_S, now)
        found.append(state.saturated)
    return found


def test_it_is_entered_as_soon_as_the_estimate_is_over_the_budget() -> None:
    assert run((0, 1.9), (0, 2.0), (0, 2.1)) == [False, False, True]


def test_it_is_left_when_the_estimate_has_been_well_below_for_a_second() -> None:
    assert run((0, 3), (0.1, 1.3), (1.0, 1.3), (1.1, 1.3)) == [True, True, True, False]


def test_below_the_budget_is_not_low_enough_to_leave() -> None:
    assert run((0, 3), *((at, 1.5) for at in range(1, 60)))[-1]


def test_a_break_in_the_low_time_starts_it_again() -> None:
    assert run((0, 3), (1, 1), (1.5, 1.5), (1.9, 1), (2.8, 1), (3, 1)) == [True, True, True, True, True, False]


def test_a_box_of_which_nothing_is_known_any_more_may_be_asked_again() -> None:
    assert run((0, 3), (1, None), (2, None), (3, None)) == [True, True, False, False]
    assert run((0, None)) == [False]


def test_having_left_it_stays_out_for_the_dwell_time() -> None:
    assert run((0, 3), (1, 1), (2, 1), (2.5, 9), (2.9, 9), (3, 9)) == [True, True, False, False, False, True]


def test_one_that_remembers_nothing_can_be_dropped() -> None:
    assert Saturation().idle(0)
    state = Saturation().after(3, BUDGET_S, 0)
    assert not state.idle(100)
    state = state.after(1, BUDGET_S, 1).after(1, BUDGET_S, 2)
    assert not state.idle(2.5)
    assert state.idle(3)


TIMES = st.lists(st.integers(0, 400), min_size=1).map(
    lambda steps: [sum(steps[: i + 1]) / 1000 for i in range(len(steps))]
)


@given(TIMES, st.data())
def test_within_the_band_nothing_flaps(times: list[float], data: st.DataObject) -> None:
    band = st.floats(LEAVE_SHARE * BUDGET_S, BUDGET_S)
    for first in (Saturation(), Saturation().after(9, BUDGET_S, 0)):
        state = first
        for now in times:
            state = state.after(data.draw(band), BUDGET_S, now)
            assert state.saturated == first.saturated


@given(TIMES, st.data())
def test_it_flips_once_in_a_dwell_time_at_most(times: list[float], data: st.DataObject) -> None:
    state, flips = Saturation(), []
    for now in times:
        later = state.after(data.draw(st.none() | st.floats(0, 4)), BUDGET_S, now)
        if later.saturated != state.saturated:
            flips.append(now)
        state = later
    assert all(b - a >= DWELL_S for a, b in pairwise(flips))


@given(TIMES, st.lists(st.none() | st.floats(0, 4), min_size=1), st.floats(0, 4))
def test_looking_ahead_changes_nothing(times: list[float], estimates: list[float | None], peek_s: float) -> None:
    state = other = Saturation()
    for now, estimate_s in zip(times, estimates, strict=False):
        state.after(peek_s, BUDGET_S, now)
        state, other = state.after(estimate_s, BUDGET_S, now), other.after(estimate_s, BUDGET_S, now)
    assert state == other
