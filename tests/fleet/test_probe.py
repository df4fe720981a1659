"""The active probe: a real token or nothing, at most one in two seconds, and what follows from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    Aborted,
    BoxEjected,
    ConnectError,
    ErrorFrame,
    ProtocolError,
    Reason,
    TooLarge,
    UpstreamError,
    UpstreamStatus,
)
from gateway.fleet.box import Box
from gateway.fleet.fleet import Fleets
from gateway.fleet.probe import DOUBT_S, INTERVAL_S, JITTER, Probe, next_probe_at
from gateway.fleet.probe_answer import ProbeAnswer
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool
from tests.fleet.conftest import StartBox
from tests.fleet.policies import compiled
from tests.fleet.token_box import SILENT, TOKEN, TokenBox, Watchers, chunk, sse, status
from tests.transport.raw_server import until_true

MakeProbe = Callable[[TokenBox], tuple[Box, Probe]]


@pytest.fixture
async def make_probe(watchers: Watchers) -> AsyncIterator[MakeProbe]:
    boxes: list[Box] = []

    def make(server: TokenBox) -> tuple[Box, Probe]:
        spec = server.spec("a", api_key="box-key")
        box = Box(
            spec,
            Pool(Origin.parse(spec.url)),
            base_model="base",
            metrics=watchers.metrics,
            alarms=watchers.alarms,
            events=watchers.events,
        )
        boxes.append(box)
        return box, Probe(box, metrics=watchers.metrics, random=lambda: 0.0, timeout_s=0.1)

    yield make
    for box in boxes:
        await box.pool.close()


# When to probe.

TIMES = st.integers(0, 8000).map(lambda eighths: eighths / 8)
"""In eighths of a second, which add up without rounding."""


@given(
    last_probe=TIMES, last_life=st.none() | TIMES, opened_at=st.none() | TIMES, for_s=st.floats(1, 8), j=st.floats(0, 1)
)
def test_two_probes_of_a_box_are_never_closer_than_the_interval(
    last_probe: float, last_life: float | None, opened_at: float | None, for_s: float, j: float
) -> None:
    due = next_probe_at(
        last_probe=last_probe,
        last_life=last_life,
        opened_at=opened_at,
        retry_at=(opened_at or 0.0) + for_s,
        jitter=j,
    )
    assert due >= last_probe + INTERVAL_S
    latest = max(last_probe, last_life or 0.0, opened_at or 0.0) + INTERVAL_S * (1 + JITTER)
    assert due <= latest + 1e-9


def test_a_box_never_probed_is_probed_at_once() -> None:
    assert next_probe_at(last_probe=None, last_life=99, opened_at=None, retry_at=0, jitter=1) == 0


def test_a_box_that_answers_clients_needs_no_probe() -> None:
    assert next_probe_at(last_probe=0, last_life=99, opened_at=None, retry_at=0, jitter=0) == 101


def test_a_box_that_owes_an_answer_and_is_silent_is_probed_earlier() -> None:
    due = next_probe_at(last_probe=0, last_life=99, opened_at=None, retry_at=0, jitter=0, in_flight=True)
    assert due == 99 + DOUBT_S
    due = next_probe_at(last_probe=98, last_life=99, opened_at=None, retry_at=0, jitter=0, in_flight=True)
    assert due == 98 + INTERVAL_S


def test_an_open_breaker_is_probed_when_it_would_try_again_and_then_at_each_interval() -> None:
    assert next_probe_at(last_probe=0, last_life=99, opened_at=100, retry_at=101, jitter=0) == 101
    assert next_probe_at(last_probe=101, last_life=99, opened_at=101, retry_at=103, jitter=0) == 103
    assert next_probe_at(last_probe=103, last_life=99, opened_at=103, retry_at=111, jitter=0) == 105


# What an answer says.


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def test_a_token_in_any_field_or_a_finish_is_life_and_a_role_or_a_comment_is_not() -> None:
    assert ProbeAnswer().feed(body(TOKEN))
    deltas: list[dict[str, object]] = [{"content": "x"}, {"reasoning": "x"}, {"tool_calls": [{}]}]
    for delta in deltas:
        assert ProbeAnswer().feed(body(sse(chunk(delta))))
    assert ProbeAnswer().feed(body(sse(chunk(finish="length"))))
    assert not ProbeAnswer().feed(
        b": keep-alive\n\n" + body(sse(chunk({"role": "assistant", "content": ""}), "[DONE]"))
    )


@given(st.lists(st.integers(1, 40)), st.booleans())
def test_an_answer_may_come_in_any_pieces(sizes: list[int], crlf: bool) -> None:
    data = body(TOKEN)
    if crlf:
        data = data.replace(b"\n", b"\r\n")
    answer, alive = ProbeAnswer(), False
    for size in [*sizes, len(data)]:
        alive |= answer.feed(data[:size])
        data = data[size:]
    assert alive


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'data: {"error": {"message": "EngineCore encountered an issue", "code": 500}}\n\n', ErrorFrame),
        (b'data: {"error": "boom"}\n\n', ErrorFrame),
        (body(sse(chunk({"content": "x"}), '{"error": {"code": 500}}')), ErrorFrame),
        (body(sse(chunk(finish="abort"))), Aborted),
        (b"data: {not json\n\n", ProtocolError),
        (b"data: " + b"[" * 50_000 + b"\n\n", ProtocolError),
        (b"data: [1]\n\n", ProtocolError),
        (b'data: {"hello": 1}\n\n', ProtocolError),
        (b"data: " + b"x" * 70_000, TooLarge),
    ],
)
def test_what_is_no_answer_is_an_error(data: bytes, error: type[UpstreamError]) -> None:
    with pytest.raises(error):
        ProbeAnswer().feed(data)


# One probe.


async def test_a_probe_asks_the_base_model_for_one_streamed_token_and_keeps_the_connection(
    make_probe: MakeProbe, start_box: StartBox, watchers: Watchers
) -> None:
    server = await start_box()
    box, probe = make_probe(server)
    await probe.once()
    ((head, sent),) = server.requests
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"authorization: Bearer box-key\r\n" in head
    asked = json.loads(sent)
    assert (asked["model"], asked["max_tokens"], asked["stream"]) == ("base", 1, True)
    assert box.last_probe is not None
    assert (box.last_probe.outcome, box.last_probe.error) == ("ok", "")
    assert box.probed
    assert (box.in_flight, box.pool.idle, box.pool.in_use) == (0, 1, 0)
    assert watchers.metrics.probes.value("a", "ok") == 1
    assert watchers.metrics.probe_seconds.count("a") == 1


@pytest.mark.parametrize(
    ("answer", "outcome", "opens_at_once"),
    [
        (status(500, '{"error": {"message": "EngineCore", "code": 500}}'), "status", False),
        (status(401), "status", True),
        (status(404), "status", False),
        (status(503, "The engine is currently busy"), "busy", False),
        (status(503, "", headers="retry-after: 1\r\n"), "busy", False),
        (status(503, "", headers="retry-after: Wed, 25 Nov 2026 10:00:07 GMT\r\n"), "busy", False),
        (status(200, "<html>"), "garbage", False),
        (sse("[DONE]"), "garbage", False),
        (sse(chunk(finish="abort")), "garbage", False),
        (SILENT, "silent", False),
    ],
)
async def test_a_probe_that_fails_says_how_and_gives_everything_back(
    make_probe: MakeProbe, start_box: StartBox, answer: bytes, outcome: str, opens_at_once: bool
) -> None:
    server = await start_box(answer)
    box, probe = make_probe(server)
    await probe.once()
    assert box.last_probe is not None
    assert box.last_probe.outcome == outcome
    assert box.last_probe.error
    assert box.breaker.closed is not opens_at_once
    assert box.probed
    assert (box.in_flight, box.pool.in_use) == (0, 0)


async def test_a_probe_that_is_refused_opens_the_breaker_at_once(make_probe: MakeProbe, start_box: StartBox) -> None:
    server = await start_box()
    await server.stop()
    box, probe = make_probe(server)
    await probe.once()
    assert box.last_probe is not None
    assert box.last_probe.outcome == "refused"
    assert not box.breaker.closed


class Waits:
    """A plain attempt that waits for its answer."""

    def __init__(self) -> None:
        self.error: UpstreamError | None = None

    def abort(self, error: UpstreamError) -> None:
        self.error = error


async def test_two_silent_probes_in_a_row_eject_the_box(
    make_probe: MakeProbe, start_box: StartBox, watchers: Watchers
) -> None:
    server = await start_box(SILENT)
    box, probe = make_probe(server)
    waits = Waits()
    box.pending.add(waits)
    await probe.once()
    assert (waits.error, box.breaker.closed) == (None, True)
    await probe.once()
    assert isinstance(waits.error, BoxEjected)
    assert not box.breaker.closed
    assert not box.fails_fast
    box.pending.clear()
    await probe.once()
    assert watchers.event_kinds().count("box_ejected") == 1, "said once an outage"


async def test_a_box_that_no_longer_listens_and_shows_nothing_is_gone_and_whoever_waits_is_told(
    make_probe: MakeProbe, start_box: StartBox
) -> None:
    server = await start_box()
    await server.stop()
    box, probe = make_probe(server)
    waits = Waits()
    box.pending.add(waits)
    await probe.once()
    assert waits.error is None
    await probe.once()
    assert isinstance(waits.error, BoxEjected)
    assert waits.error.reason is Reason.BACKEND_DOWN
    assert box.fails_fast


async def test_a_box_that_no_longer_listens_and_still_answers_is_left_to_finish(
    make_probe: MakeProbe, start_box: StartBox
) -> None:
    server = await start_box()
    box, probe = make_probe(server)
    running = box.admit("acme_v3", 0)
    assert running is not None
    await server.stop()
    waits = Waits()
    box.pending.add(waits)
    for _ in range(4):
        await probe.once()
        running.progressed(asyncio.get_running_loop().time())
    assert waits.error is None


async def test_what_starts_to_wait_on_a_box_that_still_hangs_is_ended_too(
    make_probe: MakeProbe, start_box: StartBox
) -> None:
    server = await start_box(SILENT)
    box, probe = make_probe(server)
    for _ in range(2):
        await probe.once()
    late = Waits()
    box.pending.add(late)
    await probe.once()
    assert late.error is not None


async def test_a_box_that_answers_others_meanwhile_is_busy_not_hung(make_probe: MakeProbe, start_box: StartBox) -> None:
    server = await start_box(SILENT)
    box, probe = make_probe(server)
    permit = box.admit("acme_v3", 0)
    assert permit is not None
    with permit:
        for n in range(4):
            probing = asyncio.get_running_loop().create_task(probe.once())
            await until_true(lambda n=n: len(server.requests) == n + 1)  # type: ignore[misc]
            permit.progressed(asyncio.get_running_loop().time())
            await probing
            assert box.last_probe is not None
            assert box.last_probe.outcome == "busy"
    assert box.breaker.closed


async def test_a_probe_that_succeeds_closes_an_open_breaker(make_probe: MakeProbe, start_box: StartBox) -> None:
    server = await start_box()
    box, probe = make_probe(server)
    permit = box.admit("acme_v3", 0)
    assert permit is not None
    permit.failed(ConnectError("refused"), asyncio.get_running_loop().time())
    assert not box.breaker.closed
    await probe.once()
    assert box.breaker.closed


async def test_an_adapter_that_was_missing_is_looked_for_where_nobody_asks_for_it(
    make_probe: MakeProbe, start_box: StartBox, watchers: Watchers
) -> None:
    server = await start_box()
    box, probe = make_probe(server)
    for adapter in ("acme_v3", "globex_v1"):
        permit = box.admit(adapter, 0)
        assert permit is not None
        permit.failed(UpstreamStatus(404), 0)
    server.answers[b"/v1/models"] = status(200, json.dumps({"data": [{"id": "base"}, {"id": "acme_v3"}]}))
    await probe.look_for_missing()
    assert box.pairs.missing().keys() == {"globex_v1"}
    assert {alarm.subject for alarm in watchers.alarms.current()} == {"a/globex_v1"}
    assert b"authorization: Bearer box-key\r\n" in server.requests[-1][0]
    assert box.breaker.closed
    asked = len(server.requests)
    await probe.look_for_missing()
    assert len(server.requests) == asked, "at most once in an interval"


async def test_a_listing_that_is_none_says_nothing(make_probe: MakeProbe, start_box: StartBox) -> None:
    box, probe = make_probe(await start_box(status(200, "<html>")))
    permit = box.admit("acme_v3", 0)
    assert permit is not None
    permit.failed(UpstreamStatus(404), 0)
    await probe.look_for_missing()
    assert box.pairs.missing().keys() == {"acme_v3"}
    assert box.breaker.closed


async def test_a_probe_that_is_cancelled_gives_everything_back(make_probe: MakeProbe, start_box: StartBox) -> None:
    server = await start_box(SILENT)
    box, probe = make_probe(server)
    task = asyncio.get_running_loop().create_task(probe.once())
    await until_true(lambda: bool(server.requests))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert (box.in_flight, box.pool.in_use) == (0, 0)
    assert box.last_probe is None


# From the outside: fleets with their probes running.


async def test_a_box_that_dies_and_comes_back_is_found_out_both_times_without_any_request(
    watchers: Watchers, start_box: StartBox
) -> None:
    server = await start_box()
    fleets = Fleets(metrics=watchers.metrics, alarms=watchers.alarms, events=watchers.events, uniform=lambda: 0.0)
    try:
        fleets.follow(compiled(server.spec("a")))
        (box,) = fleets.all()
        assert not fleets.probed
        await until_true(lambda: fleets.probed)
        assert box.breaker.closed
        await server.stop()
        await until_true(lambda: not box.breaker.closed, within_s=5)
        await server.start()
        await until_true(lambda: box.breaker.closed, within_s=5)
        gaps = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
        assert all(gap >= INTERVAL_S - 0.05 for gap in gaps)
    finally:
        await fleets.close()


async def test_a_box_that_leaves_the_policy_is_no_longer_probed(watchers: Watchers, start_box: StartBox) -> None:
    first, second = await start_box(), await start_box()
    fleets = Fleets(metrics=watchers.metrics, alarms=watchers.alarms, events=watchers.events)
    try:
        fleets.follow(compiled(first.spec("a")))
        await until_true(lambda: fleets.probed)
        (before,) = fleets.all()
        fleets.follow(compiled(second.spec("a")))
        await until_true(lambda: fleets.probed)
        await until_true(lambda: before.pool.open == 0)
        assert [head.split()[0] for head, _ in first.requests].count(b"POST") == 1
        assert len(asyncio.all_tasks()) >= 2
    finally:
        await fleets.close()
    assert [task.get_name() for task in asyncio.all_tasks() if "probe" in task.get_name()] == []
