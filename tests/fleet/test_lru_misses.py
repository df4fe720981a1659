"""Predicted swaps: Che's approximation against an LRU that is asked."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.lru_misses import misses_per_s
from gateway.fleet.slot_model import SlotModel

rates = st.lists(st.floats(0.001, 50), min_size=1, max_size=40)


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("slots", [8, 16])
def test_it_is_what_an_lru_does(exponent: float, slots: int) -> None:
    asked = [(rank + 1) ** -exponent for rank in range(40)]
    model = SlotModel(slots)
    requests = 20_000
    for adapter in random.Random(3).choices(range(40), asked, k=requests):
        model.use(str(adapter), lambda name: 0)
    assert model.swaps / requests == pytest.approx(misses_per_s(asked, slots) / sum(asked), rel=0.05)


@given(rates, st.integers(1, 16))
def test_never_negative_never_more_than_the_requests_and_less_with_more_slots(asked: list[float], slots: int) -> None:
    misses = misses_per_s(asked, slots)
    assert 0 <= misses <= sum(asked) * 1.0001
    assert misses_per_s(asked, slots + 1) <= misses * 1.001 + 1e-9


@given(rates)
def test_with_slots_for_all_nothing_is_swapped(asked: list[float]) -> None:
    assert misses_per_s(asked, len(asked)) == 0
