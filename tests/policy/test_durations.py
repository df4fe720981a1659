"""How long policies say things may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("2s", 2.0), ("10m", 600.0), ("1500ms", 1.5), ("1.5s", 1.5)]
)
def test_a_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["2", 2, 2.0, "2 s", "2h", "", "-1s", "s", None, True, "1e3s", "2s ", "٢s x", "0x2s"])
def test_anything_else_is_refused_with_the_forms_that_are_known(value: object) -> None:
    with pytest.raises(ValueError, match="250ms, 2s or 10m"):
        parse_duration(value)


@pytest.mark.parametrize("value", ["0s", "0ms", "1441m", "999999999s"])
def test_no_time_at_all_and_more_than_a_day_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="over 0 and at most 1440m"):
        parse_duration(value)


@given(st.integers(1, 86_400_000))
def test_a_duration_survives_being_written_and_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)
