"""Measured rates: right from the first minute on, and forgotten in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.traffic import Traffic


@given(st.floats(10, 5000), st.integers(1, 20), st.integers(1, 50))
def test_a_steady_rate_is_measured_as_it_is(now: float, rebalances: int, each: int) -> None:
    traffic = Traffic(now)
    for turn in range(1, rebalances + 1):
        for _ in range(each):
            traffic.seen("acme")
        measured = traffic.rates(now + 5 * turn)
    assert measured["acme"] == pytest.approx(each / 5, rel=0.01)


def test_what_nobody_asks_for_any_more_is_forgotten() -> None:
    traffic = Traffic(0)
    traffic.seen("acme")
    assert traffic.rates(5).keys() == {"acme"}
    assert traffic.remembered == pytest.approx(1, rel=0.02)
    assert traffic.rates(1000) == {}
    assert traffic.remembered == 0


def test_no_time_no_rates() -> None:
    traffic = Traffic(3)
    traffic.seen("acme")
    assert traffic.rates(3) == {}
    assert traffic.rates(4)["acme"] == pytest.approx(1, rel=0.01)
