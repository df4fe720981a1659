"""What is said to be chance, and how many prompts it takes to say so."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.evalgate.significance import bootstrap, drop_shown, mcnemar_exact, prompts_needed, wilson

COUNTS = st.integers(0, 60)


@given(COUNTS, COUNTS)
def test_mcnemar_does_not_care_which_way(worse: int, better: int) -> None:
    p = mcnemar_exact(worse, better)
    assert 0 < p <= 1
    assert p == mcnemar_exact(better, worse)
    if worse > better:
        assert mcnemar_exact(worse + 1, better) < p or p == 1.0


@pytest.mark.parametrize(
    # By hand: of 2^12 equally likely ways twelve prompts can go, 2 (66 + 12 + 1) are as far off as 10 to 2.
    ("worse", "better", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (10, 2, 0.03857421875), (3, 1, 0.625)],
)
def test_mcnemar_is_the_binomial_test(worse: int, better: int, p: float) -> None:
    assert mcnemar_exact(worse, better) == pytest.approx(p, rel=1e-6)


def test_mcnemar_stands_counts_that_no_float_holds() -> None:
    assert mcnemar_exact(3000, 2000) < 1e-40
    with pytest.raises(ValueError):
        mcnemar_exact(-1, 0)


@given(st.integers(1, 500), st.data())
def test_wilsons_interval_holds_the_share(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = wilson(right, n)
    assert 0 <= low <= right / n + 1e-12
    assert right / n - 1e-12 <= high <= 1


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.0, 0.5, 1.0]), min_size=1, max_size=80), st.integers(0, 9))
def test_the_bootstrap_is_repeatable_within_bounds_and_turns_with_the_signs(moves: list[float], seed: int) -> None:
    low, high = bootstrap(moves, seed=seed)
    assert (low, high) == bootstrap(moves, seed=seed)
    assert min(moves) <= low <= high <= max(moves)
    turned_low, turned_high = bootstrap([-one for one in moves], seed=seed)
    assert turned_low == pytest.approx(-high, abs=0.15)
    assert turned_high == pytest.approx(-low, abs=0.15)


def test_the_bootstrap_draws_as_if_every_prompt_were_drawn() -> None:
    moves = [1.0] * 12 + [-1.0] * 4 + [0.0] * 184
    drawn = random.Random(5)
    means = sorted(math.fsum(drawn.choices(moves, k=200)) / 200 for _ in range(4000))
    low, high = bootstrap(moves, seed=3)
    assert (low, high) == (pytest.approx(means[100], abs=0.006), pytest.approx(means[3899], abs=0.006))


@given(st.floats(0.002, 0.5), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_more_that_differs_takes_more_prompts_and_more_prompts_show_less(drop: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert prompts_needed(drop, low) <= prompts_needed(drop, high)
    needed = prompts_needed(drop, low)
    shown = drop_shown(needed, low)
    assert shown is not None
    assert shown <= drop + 1e-6


def test_the_formula_agrees_with_the_exact_test() -> None:
    # All that differs got worse, at 2 points: so many prompts give six such with a probability of about 80 %.
    needed = prompts_needed(0.02, 0.02)
    least = next(k for k in range(1, 20) if mcnemar_exact(k, 0) < 0.05)
    seen = 1 - sum(math.comb(needed, k) * 0.02**k * 0.98 ** (needed - k) for k in range(least))
    assert seen == pytest.approx(0.8, abs=0.04)


def test_200_prompts_do_not_show_half_a_point_and_one_shows_nothing() -> None:
    assert prompts_needed(0.005, 0.0) == 1568
    shown = drop_shown(200, 0.0)
    assert shown is not None
    assert 0.03 < shown < 0.05
    assert drop_shown(1, 0.0) is None
    with pytest.raises(ValueError):
        prompts_needed(0.0, 0.1)
