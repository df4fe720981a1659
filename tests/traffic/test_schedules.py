"""Arrivals are a Poisson process of the mix's rate, weights and lengths, and the same for the same seed."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.traffic.arrival import Arrival
from backend.traffic.mix import TrafficMix
from backend.traffic.population import NobodyToAsk, population
from backend.traffic.read import TrafficError, mix_from
from backend.traffic.schedule import schedule
from backend.traffic.trace import read_trace, write_trace


def mix(text: str = "") -> TrafficMix:
    return mix_from(text, "t.yaml")


def test_the_same_seed_gives_the_same_arrivals_and_another_one_others() -> None:
    assert schedule(mix()) == schedule(mix(), 1)
    assert schedule(mix(), 2) != schedule(mix(), 1)


def test_gaps_are_exponential_at_the_rate_that_was_asked_for() -> None:
    arrivals = schedule(mix("requests_per_minute: 6000\nduration: 100s\nwarm_up: 0s"))
    gaps = [b.at_s - a.at_s for a, b in itertools.pairwise(arrivals)]
    # 10,000 of them: the mean's standard error is 1 %, and of an exponential the deviation equals the mean.
    assert statistics.fmean(gaps) == pytest.approx(0.01, rel=0.04)
    assert statistics.stdev(gaps) == pytest.approx(0.01, rel=0.06)


def test_customers_come_by_their_weights() -> None:
    arrivals = schedule(mix("requests_per_minute: 6000\ncustomers: {acme: 5, globex: 1}"))
    counts = Counter(arrival.customer for arrival in arrivals)
    assert counts["acme"] / counts["globex"] == pytest.approx(5, rel=0.15)


def test_under_zipfs_law_the_second_has_half_of_the_first() -> None:
    first, second, *rest = population(mix("zipf: 1.0\nadapters: 40"))
    assert first.share == pytest.approx(2 * second.share)
    assert len(rest) == 38
    assert first.share + second.share + sum(one.share for one in rest) == pytest.approx(1)


def test_a_burst_brings_so_many_times_the_traffic_from_so_many_adapters() -> None:
    arrivals = schedule(mix("zipf: 3.0\nadapters: 40\nbursts: [{at: 20s, for: 10s, times: 9, adapters: 12}]"))
    within = [arrival for arrival in arrivals if 30 <= arrival.at_s < 40]
    before = [arrival for arrival in arrivals if 20 <= arrival.at_s < 30]
    assert len(within) == pytest.approx(900, rel=0.12)
    assert len(before) == pytest.approx(100, rel=0.4)
    assert len([name for name, count in Counter(a.model for a in within).items() if count > 40]) in (12, 13)


def test_lengths_follow_their_distribution_and_leave_times_alone() -> None:
    usual = schedule(mix("requests_per_minute: 6000"))
    spread = schedule(mix("requests_per_minute: 6000\nprompt_tokens: {lognormal: {median: 400, p90: 900}}"))
    assert [a.at_s for a in usual] == [a.at_s for a in spread]
    lengths = sorted(a.prompt_tokens for a in spread)
    assert lengths[len(lengths) // 2] == pytest.approx(400, rel=0.05)
    assert lengths[len(lengths) * 9 // 10] == pytest.approx(900, rel=0.07)
    assert lengths[-1] <= 3600


@given(low=st.integers(1, 50), more=st.integers(0, 50), seed=st.integers())
def test_uniform_lengths_stay_in_their_range(low: int, more: int, seed: int) -> None:
    text = f"requests_per_minute: 60\nduration: 30s\noutput_tokens: {{uniform: [{low}, {low + more}]}}\nstream: 0"
    arrivals = schedule(mix(text), seed)
    assert all(low <= arrival.output_tokens <= low + more and not arrival.streamed for arrival in arrivals)
    assert all(0 <= a.at_s <= b.at_s < 40 for a, b in itertools.pairwise(arrivals))


def test_models_come_from_those_that_are_known() -> None:
    askers = population(mix("customers: {acme: 1, globex: {weight: 2, model: special}}"), {"acme": "acme_v3"})
    assert [(one.customer, one.model) for one in askers] == [("globex", "special"), ("acme", "acme_v3")]
    with pytest.raises(NobodyToAsk, match="initech"):
        population(mix("customers: {initech: 1}"), {"acme": "acme_v3"})
    with pytest.raises(NobodyToAsk, match="3 adapters and 1"):
        population(mix("adapters: 3"), {"acme": "acme_v3"})


def test_a_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    arrivals = schedule(mix("stream: 0.5"))
    write_trace(tmp_path / "trace.jsonl", arrivals)
    read = read_trace(tmp_path / "trace.jsonl")
    rounded = [
        Arrival(round(a.at_s, 6), a.customer, a.model, a.prompt_tokens, a.output_tokens, a.streamed) for a in arrivals
    ]
    assert read == rounded


@pytest.mark.parametrize(
    "line",
    ['{"at": -1}', "nonsense", '{"at": 1, "customer": "a", "model": "m", "prompt_tokens": 0, "output_tokens": 1}'],
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"at": 0, "customer": "a", "model": "m", "prompt_tokens": 3, "output_tokens": 1, "more": []}\n' + line
    )
    with pytest.raises(TrafficError, match=r"trace\.jsonl:2:1"):
        read_trace(path)


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text("\n")
    with pytest.raises(TrafficError, match="holds no request"):
        read_trace(tmp_path / "trace.jsonl")
