"""What a report says of samples: pure, no clock."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.charts import Series, line_chart
from backend.loadtest.cost import CostModel, table
from backend.loadtest.generator import Progress
from backend.loadtest.page import page
from backend.loadtest.statistics import Distribution, quantile
from gateway.cli.load_screen import moving_line
from tests.loadtest.made import report_of, sample


def test_times_are_measured_from_when_a_request_was_due_and_not_from_when_it_left() -> None:
    # The client was a second late with it: the server answered within 100 ms, the customer waited 1.1 s.
    document = report_of([sample(5.0, ttft_s=1.1, took_s=1.6, late_s=1.0)])
    assert document["overall"]["ttft_ms"]["p50"] == pytest.approx(1100)
    assert document["overall"]["e2e_ms"]["p50"] == pytest.approx(1600)
    assert document["client"]["late_ms"]["p50"] == pytest.approx(1000)
    assert document["client"]["saturated"]
    assert "was the bottleneck" in document["client"]["warnings"][0]


def test_a_client_that_keeps_time_is_not_warned_of_and_one_out_of_cpu_is() -> None:
    assert report_of([sample()])["client"]["warnings"] == []
    assert "95% of its core" in report_of([sample()], cpu=0.95)["client"]["warnings"][0]


def test_warm_up_is_counted_and_not_measured() -> None:
    samples = [sample(at_s, ttft_s=9.0) for at_s in (0.0, 4.9)] + [sample(5.0), sample(7.0)]
    document = report_of(samples, warm_up_s=5.0)
    assert document["run"]["warm_up_requests"] == 2
    assert document["overall"]["requests"] == 2
    assert document["overall"]["ttft_ms"]["max"] == pytest.approx(100)


def test_inter_token_latency_is_over_the_tokens_after_the_first() -> None:
    assert report_of([sample(ttft_s=0.1, took_s=0.6, tokens=11)])["overall"]["inter_token_ms"]["p50"] == pytest.approx(
        50
    )


def test_goodput_is_what_was_whole_and_within_the_customers_own_budget() -> None:
    document = report_of(
        [
            sample(ttft_s=1.9),
            sample(ttft_s=2.1),
            sample(customer="globex", ttft_s=0.2),
            sample(streamed=False, took_s=9.0),
            sample(streamed=False, took_s=11.0),
            sample(degraded="backend_down", served_by="provider:hosted"),
            sample(error="status 503", ttft_s=None),
            sample(ttft_s=None),
        ]
    )
    goodput = document["overall"]["goodput"]
    assert (goodput["in_budget"], goodput["own"]) == (3, 2)
    assert goodput["share"] == pytest.approx(3 / 8)
    assert document["customers"]["globex"]["goodput"]["share"] == 0
    assert document["degraded"] == {"backend_down": {"requests": 1, "share": 0.125}}
    assert document["errors"] == {"status 503": {"requests": 1, "share": 0.125}}


def test_tokens_a_second_are_those_of_each_target_over_the_measured_time() -> None:
    document = report_of([sample(1.0, tokens=30), sample(2.0, tokens=50, served_by="box:b"), sample(9.0, tokens=20)])
    assert document["run"]["measured_s"] == 10
    assert document["targets"]["box:a"]["output_tokens_per_s"] == 5
    assert document["targets"]["box:b"]["output_tokens_per_s"] == 5
    late = report_of([sample(9.0, took_s=11.0, tokens=100)])
    assert late["run"]["measured_s"] == 20
    assert late["overall"]["output_tokens_per_s"] == 5


def test_each_second_shows_what_was_due_in_it() -> None:
    rows = report_of([sample(0.2), sample(0.9, ttft_s=0.3), sample(3.0, error="status 500", ttft_s=None)])["seconds"]
    assert rows["requests"][:4] == [2, 0, 0, 1]
    assert rows["errors"][3] == 1
    assert rows["slowest_ttft_ms"][:2] == [300.0, None]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_lies_within_and_grows(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert ordered[0] - 1e-6 <= found <= ordered[-1] + 1e-6
    assert found <= quantile(ordered, min(1.0, share + 0.1)) + 1e-6


def test_quantiles_are_those_that_numpy_has() -> None:
    numpy = pytest.importorskip("numpy")
    values = sorted((n * 37 % 101) / 10 for n in range(57))
    for share in (0.0, 0.5, 0.9, 0.99, 1.0):
        assert quantile(values, share) == pytest.approx(float(numpy.quantile(values, share)))
    assert Distribution.of_seconds([]).p50 is None


def test_the_table_sets_shared_boxes_beside_a_deployment_an_adapter_and_states_what_it_assumes() -> None:
    document = report_of([sample(n / 10, customer=f"c{n % 40}", tokens=256) for n in range(80)])
    rows = {row[0]: row[1:] for row in document["table"]["rows"]}
    assert document["table"]["columns"][1:] == ["40 deployments", "2 boxes, shared"]
    assert rows["GPUs"] == ["40", "2"]
    assert rows["idle cost a month"] == ["24,000 USD", "1,200 USD"]
    assert rows["p50 latency, 256 tokens on average"][0] == "–", "not measured, so no figure"
    assert "No separate deployment was measured" in document["table"]["assumptions"][-1]
    assert any("600 USD a month" in one for one in document["table"]["assumptions"])
    standalone = report_of([sample(took_s=0.41)])
    beside = {row[0]: row[1:] for row in table(document, CostModel(gpu_usd_per_month=1000), standalone)["rows"]}
    assert beside["p50 latency, 256 tokens on average"] == ["410 ms", "600 ms"]
    assert beside["idle cost a month"] == ["40,000 USD", "2,000 USD"]


class _Outside(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]


def test_the_page_needs_nothing_else_and_takes_no_name_for_markup() -> None:
    text = page(report_of([sample(0.5), sample(1.5, customer="<script>")]))
    parser = _Outside()
    parser.feed(text)
    assert parser.found == []
    assert "script" not in parser.tags
    assert parser.tags.count("svg") == 4
    assert not re.search(r"@import|url\(", text)
    assert "&lt;script&gt;" in text


def test_a_run_without_any_answer_has_a_report_and_a_page() -> None:
    document = report_of([sample(error="cannot connect: refused", ttft_s=None)])
    assert document["overall"]["ttft_ms"]["p50"] is None
    assert "nothing to draw" in page(json.loads(json.dumps(document)))


def test_the_moving_line_tells_of_the_last_answers_and_of_a_late_client() -> None:
    running = Progress(sent=12, in_flight=3, samples=[sample(), sample(error="status 503", ttft_s=None)], late_s=0.25)
    line = moving_line(running)
    assert "12 sent, 3 in flight" in line
    assert "first token p50 100 ms" in line
    assert "of the last 2: 0 degraded, 1 failed" in line
    assert "sent 250 ms late" in line
    assert moving_line(Progress()) == "0 sent, 0 in flight"


@pytest.mark.parametrize(
    ("longest", "ticks"),
    [
        (11.0, ["0", "5", "10"]),
        (5.5, ["0", "2", "4"]),
        (60.03, ["0", "20", "40", "60"]),
        (2.0, ["0", "0.5", "1", "1.5", "2"]),
    ],
)
def test_an_axis_is_marked_at_round_values(longest: float, ticks: list[str]) -> None:
    drawn = line_chart("t", [Series("s", [(0.0, 1.0), (longest, 2.0)])], x="s", y="ms")
    assert re.findall(r'text-anchor="middle">([^<]*)<', drawn) == ticks
