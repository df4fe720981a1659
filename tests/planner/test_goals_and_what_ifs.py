"""What a plan is asked in words, and the pure parts behind it."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.planner.bill import Bill
from backend.planner.figures import Figures, quantile
from backend.planner.goal import BadGoal, read_goal
from backend.planner.plots import Axis, Series, plot
from backend.planner.scenario import Option
from backend.planner.search import smallest
from backend.planner.terms import PlanError
from backend.planner.what_if import more_of, peak_of, read_what_if
from backend.traffic.arrival import Arrival

FOUND = Figures(
    option=Option(2, 8),
    requests=1000,
    ttft_s={0.5: 0.1, 0.9: 0.5, 0.95: 1.5, 0.99: 2.5},
    e2e_s={0.5: 1.0, 0.9: 2.0, 0.95: 3.0, 0.99: 4.0},
    degraded={"backend_saturated": 0.006, "backend_down": 0.002},
    failed=0.001,
    refused=0.0,
    swaps=0.3,
    swaps_per_s=3.0,
    disk_loads=0.0,
    tokens_per_s=1200.0,
    bill=Bill(1197.0, 10.0, unpriced=False),
    died=None,
    worst_customer=None,
)


@pytest.mark.parametrize(
    ("goal", "missed"),
    [
        ("p95 ttft < 2s and degraded < 1 %", []),
        ("p95 ttft < 1500ms", ["p95 ttft < 1500ms"]),
        ("p95 ttft <= 1500ms", []),
        ("P99 TTFT < 2s, errors < 0.05%", ["P99 TTFT < 2s", "errors < 0.05%"]),
        ("p50 e2e < 0.9s and swaps < 0.25 and cost < 1200", ["p50 e2e < 0.9s", "swaps < 0.25", "cost < 1200"]),
        ("degraded < 0.8%", ["degraded < 0.8%"]),
    ],
)
def test_a_goal_is_missed_by_the_bounds_that_do_not_hold(goal: str, missed: list[str]) -> None:
    assert [clause.text for clause in read_goal(goal).missed(FOUND)] == missed


@pytest.mark.parametrize(
    "goal",
    ["", "fast", "ttft < 2s", "p95 ttft < 2", "p97 ttft < 2s", "p95 degraded < 1%", "cost < 5s", "p95 ttft > 1s"],
)
def test_what_is_no_goal_is_refused_by_name(goal: str) -> None:
    with pytest.raises(BadGoal, match=re.escape(repr(goal.strip()))):
        read_goal(goal)


def test_a_quantile_of_nothing_reaches_no_goal() -> None:
    assert not read_goal("p95 ttft < 2s").clauses[0].limit <= math.nan


@given(need=st.integers(1, 70), most=st.integers(1, 64), first=st.integers(1, 100))
def test_the_search_finds_the_smallest_that_is_enough_in_few_looks(need: int, most: int, first: int) -> None:
    looks: list[int] = []

    def enough(number: int) -> bool:
        looks.append(number)
        return number >= need

    assert smallest(enough, first=first, most=most) == (need if need <= most else None)
    assert len(looks) <= 2 * math.log2(most) + 4
    assert all(1 <= number <= most for number in looks)


def arrivals(*times: float) -> list[Arrival]:
    return [Arrival(at_s, "acme", "acme_v3", 10, 10, True) for at_s in times]


def test_the_peak_is_where_most_is_asked() -> None:
    calm = [float(n) for n in range(0, 600, 5)]
    burst = [250 + n / 10 for n in range(200)]
    assert 240 <= peak_of(arrivals(*sorted(calm + burst)), 60.0, 600.0) <= 275


@given(st.lists(st.floats(0, 99), min_size=1, max_size=50), st.floats(0, 50))
def test_the_peak_is_in_the_counted_time_and_leaves_an_aftermath(times: list[float], warm_up_s: float) -> None:
    peak = peak_of(arrivals(*sorted(times)), warm_up_s, 100.0)
    assert warm_up_s <= peak <= warm_up_s + (100.0 - warm_up_s) * 2 / 3 + 1e-9


@given(st.lists(st.floats(0, 99), min_size=1, max_size=30), st.integers(1, 5))
def test_twins_of_a_trace_do_what_their_originals_did(times: list[float], many: int) -> None:
    trace = arrivals(*sorted(times))
    found = more_of(trace, many, 100.0, 1)
    assert len(found) == many * len(trace)
    assert len({one.customer for one in found}) == many
    assert [one for one in found if one.customer == "acme"] == trace
    assert all(0 <= one.at_s <= 100.0 for one in found)
    assert found == sorted(found, key=lambda one: one.at_s)


def test_what_ifs_are_read_alone_and_together() -> None:
    both = read_what_if("customers=10x + box-dies@2m")
    assert (both.times, both.dies, both.at_s) == (10, True, 120.0)
    assert read_what_if("box-dies").at_s is None
    for wrong in ("box-lives", "customers=ten", "customers=0x", "box-dies@soon"):
        with pytest.raises(PlanError, match=wrong.partition("=")[0]):
            read_what_if(wrong)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_a_value_that_the_share_does_not_exceed(values: list[float], q: float) -> None:
    found = quantile(sorted(values), q)
    assert sum(value <= found for value in values) >= q * len(values) - 1e-9
    assert sum(value < found for value in values) < q * len(values) + 1e-9


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), max_size=20), st.booleans(), st.booleans())
def test_any_points_make_a_plot_within_its_frame(points: list[tuple[float, float]], steep: bool, dots: bool) -> None:
    text = plot(Axis("x", logarithmic=steep), Axis("<y>", logarithmic=steep), [Series("one & all", points, dots=dots)])
    assert "<y>" not in text
    assert "nan" not in text
    drawn = [
        tuple(map(float, pair.split(",")))
        for line in re.findall(r'polyline[^>]*points="([^"]*)"', text)
        for pair in line.split()
    ]
    assert all(0 <= px <= 720 and 0 <= py <= 320 for px, py in drawn)
