"""What the gateway keeps of the times to first token that it sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.ttft import HALF_LIFE_S, LONGEST_S, Ttft, TtftHistory


def seen(*samples: float, silent: int = 0, every_s: float = 0.1) -> tuple[TtftHistory, float]:
    history, now = TtftHistory(), 0.0
    for sample in samples:
        now += every_s
        history.observe(sample, silent=silent, now=now)
    return history, now


def test_without_samples_nothing_is_known() -> None:
    assert TtftHistory().view(5) == Ttft()


def test_the_floor_falls_at_once_and_rises_slowly() -> None:
    history, now = seen(0.2, 0.1)
    assert history.view(now).floor_s == 0.1
    history, now = seen(0.1, *[0.2] * 10)
    floor_s = history.view(now).floor_s
    assert floor_s is not None
    assert 0.1 < floor_s < 0.12
    history, now = seen(0.1, *[0.2] * 1000)
    floor_s = history.view(now).floor_s
    assert floor_s is not None
    assert floor_s > 0.19


def test_one_cold_adapter_that_waited_long_does_not_make_the_box_slow() -> None:
    history, now = seen(*[0.2] * 20, 14.8)
    recent_s = history.view(now).recent_s
    assert recent_s is not None
    assert recent_s < 0.4


def test_a_box_that_has_become_slow_is_soon_seen_to_be() -> None:
    history, now = seen(*[0.2] * 20, *[10.0] * 6)
    recent_s = history.view(now).recent_s
    assert recent_s is not None
    assert recent_s > 2


def test_what_was_slow_is_forgotten_where_nothing_new_comes() -> None:
    history, now = seen(0.1, *[8.0] * 100)
    floor_s = history.view(now).floor_s
    before = history.view(now).recent_s
    after = history.view(now + HALF_LIFE_S).recent_s
    assert floor_s is not None
    assert before is not None
    assert after is not None
    assert abs((after - floor_s) - (before - floor_s) / 2) < 1e-6
    assert history.view(now + 1e9).recent_s == floor_s


def test_the_cost_of_one_silent_request_is_learned() -> None:
    history, now = seen(*[0.1] * 5)
    for count in range(1, 400):
        now += 0.1
        history.observe(0.1 + 0.02 * (count % 7), silent=count % 7, now=now)
    slope_s = history.view(now).per_silent_s
    assert slope_s is not None
    assert 0.01 < slope_s < 0.03


@given(st.lists(st.tuples(st.floats(), st.integers(-5, 10**9), st.floats())), st.floats(0, 1e6))
def test_no_sample_does_harm(samples: list[tuple[float, int, float]], now: float) -> None:
    history = TtftHistory()
    for ttft_s, silent, at in samples:
        history.observe(ttft_s, silent=silent, now=at)
    view = history.view(now)
    for value in (view.floor_s, view.recent_s, view.per_silent_s):
        assert value is None or 0 <= value <= LONGEST_S
    if view.floor_s is not None and view.recent_s is not None:
        assert view.recent_s >= view.floor_s


def test_a_request_that_was_given_up_on_makes_the_box_slower_now_and_not_at_best() -> None:
    history = TtftHistory()
    history.gave_up(5.0, now=0.0)
    assert history.view(0.0) == Ttft(), "how fast it can be was never seen"
    history.observe(0.1, silent=0, now=0.0)
    for _ in range(30):
        history.gave_up(2.0, now=0.0)
    seen = history.view(0.0)
    assert seen.floor_s == 0.1
    assert seen.recent_s == pytest.approx(2.0, rel=0.1)


def test_a_box_that_was_found_slow_is_seen_to_be_fast_again_by_a_probe() -> None:
    history = TtftHistory()
    history.at_best(float("nan"))
    history.at_best(-1.0)
    assert history.view(0.0) == Ttft()
    for _ in range(10):
        history.observe(9.0, silent=0, now=0.0)
    history.at_best(0.2)
    assert history.view(0.0).floor_s == 0.2
    recent_s = history.view(60.0).recent_s
    assert recent_s is not None
    assert recent_s < 0.21
