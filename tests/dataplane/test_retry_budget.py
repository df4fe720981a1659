"""Retries stay within 20 % of requests plus 10 a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.retry_budget import RetryBudget


def test_ten_a_second_are_allowed_without_any_requests() -> None:
    budget = RetryBudget(0.0)
    assert sum(budget.take(0.0) for _ in range(100)) == 10
    assert sum(budget.take(1.0) for _ in range(100)) == 10


def test_a_fifth_of_requests_is_allowed_on_top() -> None:
    budget = RetryBudget(0.0)
    for _ in range(100):
        budget.request()
    assert sum(budget.take(0.0) for _ in range(100)) == 30


def test_a_clock_that_jumps_back_gives_nothing() -> None:
    budget = RetryBudget(100.0)
    assert sum(budget.take(100.0) for _ in range(100)) == 10
    assert not budget.take(0.0)
    assert not budget.take(100.0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.floats(0, 1)), max_size=50))
def test_the_bound_holds_over_any_history(history: list[tuple[int, int, float]]) -> None:
    budget, now, requests, retries = RetryBudget(0.0), 0.0, 0, 0
    for arrivals, wanted, passed in history:
        now += passed
        for _ in range(arrivals):
            budget.request()
        requests += arrivals
        retries += sum(budget.take(now) for _ in range(wanted))
        assert retries <= 0.2 * requests + 10 * now + 10 + 1e-6


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20), st.floats(0, 1)), max_size=20))
def test_what_is_left_is_what_could_be_taken_now_and_looking_takes_none(history: list[tuple[int, int, float]]) -> None:
    budget, now = RetryBudget(0.0), 0.0
    for arrivals, wanted, passed in history:
        now += passed
        for _ in range(arrivals):
            budget.request()
        for _ in range(wanted):
            left = budget.left(now)
            assert budget.take(now) == (left > 0)
            assert budget.left(now) == max(0, left - 1)


@pytest.mark.parametrize("workers", [2, 4, 20])
def test_several_processes_together_have_no_more_by_time_than_one(workers: int) -> None:
    budgets = [RetryBudget(0.0, share=1 / workers) for _ in range(workers)]
    for budget in budgets:
        while budget.take(0.0):
            pass
    taken = sum(budget.take(tick / 100) for tick in range(1000) for budget in budgets)
    assert 90 <= taken <= 100
