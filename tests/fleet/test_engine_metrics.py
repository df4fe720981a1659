"""Reading a box's metrics: what a real page says, what one that lacks something says, and that none does harm."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ProtocolError, TooLarge, UpstreamError
from gateway.fleet.engine_metrics import MAX_PAGE_BYTES, SHORT_PATH, EngineReading, parse

PAGE = (Path(__file__).parent / "data" / "vllm_0_32_metrics.txt").read_bytes()
"""Abridged from a box with one LoRA slot and two adapters asking: twenty requests run, twenty wait for the slot."""

READING = EngineReading(
    at_s=7.0,
    running=19,
    waiting_capacity=0,
    waiting_deferred=20,
    kv_cache_usage=0.018559218559218604,
    preemptions_total=0,
    prompt_tokens_total=1914,
    generation_tokens_total=5936,
    requests_finished_total=3,
    ttft_sum_s=4.336186408996582,
    ttft_count=22,
    asleep=False,
)


def without(name: bytes, page: bytes = PAGE) -> bytes:
    return b"\n".join(line for line in page.split(b"\n") if not line.startswith((name + b"{", name + b" ")))


def with_value(name: bytes, value: bytes) -> bytes:
    lines = PAGE.split(b"\n")
    return b"\n".join(
        line.rpartition(b" ")[0] + b" " + value if line.startswith(name + b"{") else line for line in lines
    )


def test_a_real_page_is_read() -> None:
    assert parse(PAGE, 7.0) == READING
    assert READING.waiting == 20


def test_the_short_page_asks_for_every_name_that_a_reading_needs() -> None:
    names = parse_qs(urlsplit(SHORT_PATH).query)["name[]"]
    lines = PAGE.split(b"\n")
    short = [line for line in lines if line.partition(b"{")[0].decode() in names]
    assert len(short) == 18
    assert parse(b"\n".join(short), 7.0) == READING


def test_line_ends_of_another_system_change_nothing() -> None:
    assert parse(PAGE.replace(b"\n", b"\r\n"), 7.0) == READING


@given(st.randoms(use_true_random=False))
def test_lines_may_come_in_any_order(shuffler: random.Random) -> None:
    lines = PAGE.split(b"\n")
    shuffler.shuffle(lines)
    reading = parse(b"\n".join(lines), 7.0)
    assert reading == READING


@given(name=st.from_regex(rb"\A[a-z_]{1,8}\Z"), value=st.binary(max_size=12))
def test_further_labels_and_time_stamps_change_nothing(name: bytes, value: bytes) -> None:
    quoted = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n").replace(b"\r", b"")
    lines = [
        line.replace(b"{", b"{x_%b=" % name + b'"' + quoted + b'",', 1) + b" 1795502905619"
        if line.startswith(b"vllm:")
        else line
        for line in PAGE.split(b"\n")
    ]
    assert parse(b"\n".join(lines), 7.0) == READING


def test_the_engines_of_a_box_are_added_up_and_the_fullest_cache_counts() -> None:
    second = without(b"vllm:kv_cache_usage_perc").replace(b'engine="0"', b'engine="1"')
    second += b'\nvllm:kv_cache_usage_perc{engine="1",model_name="base"} 0.5\n'
    both = parse(PAGE + second, 7.0)
    assert (both.running, both.waiting_deferred, both.ttft_count) == (38, 40, 44)
    assert both.kv_cache_usage == 0.5


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (b"vllm:num_requests_running", "running"),
        (b"vllm:kv_cache_usage_perc", "kv_cache_usage"),
        (b"vllm:num_preemptions_total", "preemptions_total"),
        (b"vllm:prompt_tokens_total", "prompt_tokens_total"),
        (b"vllm:generation_tokens_total", "generation_tokens_total"),
        (b"vllm:request_success_total", "requests_finished_total"),
        (b"vllm:time_to_first_token_seconds_sum", "ttft_sum_s"),
        (b"vllm:time_to_first_token_seconds_count", "ttft_count"),
    ],
)
def test_what_is_missing_or_not_a_number_is_unknown_and_not_zero(name: bytes, field: str) -> None:
    for page in (without(name), with_value(name, b"NaN"), with_value(name, b"+Inf"), with_value(name, b"-1")):
        assert parse(page, 7.0) == replace(READING, **{field: None})  # type: ignore[arg-type]


def test_an_older_box_that_gives_no_reasons_has_all_that_wait_wait_for_capacity() -> None:
    page = without(b"vllm:num_requests_waiting_by_reason")
    assert parse(page, 7.0) == replace(READING, waiting_capacity=20, waiting_deferred=None)
    nothing = parse(without(b"vllm:num_requests_waiting", page), 7.0)
    assert nothing.waiting is None


def test_a_name_that_only_begins_alike_is_another_one() -> None:
    page = PAGE + b'vllm:num_requests_running_peak{engine="0"} 99.0\nvllm:num_requests_running99 1\n'
    assert parse(page, 7.0) == READING


def test_a_cache_is_never_more_than_full() -> None:
    assert parse(with_value(b"vllm:kv_cache_usage_perc", b"1.0000001"), 7.0).kv_cache_usage == 1


def test_a_reason_that_is_new_counts_as_capacity() -> None:
    page = PAGE + b'vllm:num_requests_waiting_by_reason{engine="0",reason="weather"} 3.0\n'
    assert parse(page, 7.0).waiting_capacity == 3


@pytest.mark.parametrize("depth", [b"weights_offloaded", b"discard_all"])
def test_an_engine_that_sleeps_is_seen_to(depth: bytes) -> None:
    state = b'vllm:engine_sleep_state{engine="0",model_name="base",sleep_state="%b"} %b.0'
    page = PAGE.replace(state % (b"awake", b"1"), state % (b"awake", b"0"))
    assert parse(page, 7.0).asleep
    assert parse(page.replace(state % (depth, b"0"), state % (depth, b"1")), 7.0).asleep
    assert not parse(without(b"vllm:engine_sleep_state"), 7.0).asleep


def test_a_page_without_anything_of_vllm_is_none_of_its_metrics() -> None:
    for page in (b"", b"<html>", b"process_cpu_seconds_total 3.0\n", b"# HELP vllm:num_requests_running x\n"):
        with pytest.raises(ProtocolError):
            parse(page, 7.0)


def test_a_page_past_its_bound_is_refused() -> None:
    with pytest.raises(TooLarge):
        parse(PAGE + b"#" * MAX_PAGE_BYTES, 7.0)


def test_a_line_that_is_far_too_long_is_passed_over() -> None:
    line = b'vllm:num_requests_running{model_name="%b"} 5\n' % (b"x" * 10_000)
    assert parse(PAGE + line, 7.0) == READING


LINES = st.sampled_from(PAGE.split(b"\n"))
BROKEN_LINES = st.tuples(LINES, st.integers(0, 90), st.binary(max_size=4)).map(
    lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + 1 :]
)


@given(st.binary() | st.lists(LINES | BROKEN_LINES | st.binary(max_size=30)).map(b"\n".join))
def test_no_bytes_do_harm(page: bytes) -> None:
    with contextlib.suppress(UpstreamError):
        reading = parse(page, 7.0)
        values = [getattr(reading, name) for name in EngineReading.__slots__ if name not in ("at_s", "asleep")]
        assert all(value is None or 0 <= value < 1e306 for value in values)
        assert reading.kv_cache_usage is None or reading.kv_cache_usage <= 1
