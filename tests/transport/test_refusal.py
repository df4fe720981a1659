"""What an upstream says instead of an answer, and when it wants to be asked again."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.refusal import retry_after_s

NOW_S = 1_790_000_000.0
DATE = "Mon, 21 Sep 2026 14:13:20 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("Mon, 21 Sep 2026 14:13:27 GMT", 7.0),
        ("Monday, 21-Sep-26 14:13:27 GMT", 7.0),
        ("Mon Sep 21 14:13:27 2026", 7.0),
        ("Mon, 21 Sep 2026 14:13:10 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("٣", None),
        ("2026", 2026.0),
        ("Mon, 99 Sep 2026 99:13:27 GMT", None),
    ],
)
def test_a_time_to_wait_is_a_number_of_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after_s(value, "", now_s=NOW_S) == seconds


def test_a_date_is_held_against_the_clock_of_whoever_named_it() -> None:
    assert retry_after_s("Mon, 21 Sep 2026 14:13:27 GMT", DATE, now_s=NOW_S + 3600) == 7.0
    assert retry_after_s("Mon, 21 Sep 2026 14:13:27 GMT", "nonsense", now_s=NOW_S + 2) == 5.0


@given(st.integers(0, 4_000_000_000), st.integers(0, 100_000))
def test_whatever_the_moment_a_date_says_how_long_it_is_until_then(now_s: int, wait_s: int) -> None:
    assert retry_after_s(formatdate(now_s + wait_s, usegmt=True), "", now_s=float(now_s)) == float(wait_s)


@given(st.text(), st.text())
def test_nothing_that_is_sent_there_is_an_error(value: str, date: str) -> None:
    found = retry_after_s(value, date, now_s=NOW_S)
    assert found is None or found >= 0
