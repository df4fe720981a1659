"""What becomes of requests when the drain time is over."""

from __future__ import annotations

import asyncio
from asyncio import Event
from typing import Any

import pytest

from gateway.dataplane.relay import GOES_ON
from gateway.policy.compiled import StaticStep
from tests.dataplane.conftest import Connect, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, KEY, Plane
from tests.dataplane.scripted_box import END, NUMBERED, STREAM_HEAD, chunked
from tests.support.checker import check_error, check_stream
from tests.support.eventually import eventually
from tests.support.streams import choice, event


async def test_a_committed_stream_ends_with_an_error_event(serve: ServePlane, scripted: StartScripted) -> None:
    box = await scripted(STREAM_HEAD, chunked(*NUMBERED[:4]), Event())
    plane = await serve([box], StaticStep("never shown"))
    answer = asyncio.ensure_future(plane.raw().chat(ADAPTER))  # noqa: TID251
    await eventually(lambda: plane.metrics.attempts.value("box:a", "committed"))
    plane.dataplane.end_requests()
    seen = check_stream(await answer)
    assert seen.violations == []
    assert seen.error is not None
    await eventually(lambda: plane.idle)
    assert all(one.breaker.closed for one in plane.fleets.all())


@pytest.mark.parametrize("policy", ["resume", "restart"])
async def test_a_stream_that_waits_for_its_rest_ends_with_an_error_event(
    serve: ServePlane, scripted: StartScripted, policy: str
) -> None:
    go, never = Event(), Event()
    blank = event(choice(role="assistant", content="")), event(choice(content="\n"))
    breaks = (STREAM_HEAD, chunked(*blank), go, END)
    boxes = [await scripted(*breaks), await scripted(*breaks)]
    plane = await serve(boxes, StaticStep("not given any more"), on_broken_stream=policy, ttft_budget_s=30.0)
    answer = asyncio.ensure_future(plane.raw().chat(ADAPTER))  # noqa: TID251
    await eventually(lambda: plane.metrics.requests.value("acme", "box", "none"))
    # Whichever was asked first: the other one keeps it waiting.
    other = next(box for box in boxes if not box.requests)
    other.script = (never,)
    go.set()
    await eventually(lambda: other.requests)
    plane.dataplane.end_requests()
    seen = check_stream(await answer, text="\n")
    assert seen.violations == []
    assert seen.error is not None
    await eventually(lambda: other.left == 1 and plane.idle)
    assert next(
        box for box in plane.fleets.all() if box.pool.origin.port == int(other.url.rpartition(":")[2])
    ).breaker.closed


async def test_the_rest_of_a_stream_is_not_asked_for_once_the_time_is_over(
    serve: ServePlane, scripted: StartScripted
) -> None:
    """A client that is slow to read keeps the gateway from seeing to the rest until then."""
    go = Event()
    script = (STREAM_HEAD, chunked(*NUMBERED[:4]), go, END)
    boxes = [await scripted(*script), await scripted(*script)]
    plane = await serve(boxes, on_broken_stream="resume")
    told = b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"model":"acme_v3","messages":[],"stream":true}'}

    async def send(message: dict[str, Any]) -> None:
        nonlocal told
        told += message.get("body", b"")
        go.set()
        if GOES_ON in told:
            plane.dataplane.end_requests()

    headers = [(b"authorization", b"Bearer " + KEY.encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    async with asyncio.timeout(20):
        await plane.dataplane(scope, receive, send)
    assert GOES_ON in told
    assert b'"code":"stream_broken"' in told
    assert told.endswith(b"data: [DONE]\n\n")
    assert sorted(len(box.requests) for box in boxes) == [0, 1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_waits_for_its_answer_gets_a_503_and_may_come_back(
    serve: ServePlane, scripted: StartScripted, stream: bool
) -> None:
    box = await scripted(Event())
    plane = await serve([box], StaticStep("not asked for any more"))
    answer = asyncio.ensure_future(plane.raw().chat(ADAPTER, stream=stream))  # noqa: TID251
    await eventually(lambda: box.requests)
    plane.dataplane.end_requests()
    recording = await answer
    assert check_error(recording).violations == []
    assert (recording.status, recording.headers["x-should-retry"]) == (503, "true")
    await eventually(lambda: box.left == 1 and plane.idle)
    assert all(one.breaker.closed for one in plane.fleets.all())


async def test_a_request_whose_body_is_on_its_way_gets_a_503(serve: ServePlane) -> None:
    plane = await serve([], StaticStep("x"))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer {KEY}\r\ncontent-length: 100\r\n\r\n"
    answer = asyncio.ensure_future(plane.raw().ask("/", raw=head.encode()))  # noqa: TID251
    await eventually(lambda: plane.running)
    await asyncio.sleep(0)
    plane.dataplane.end_requests()
    assert (await answer).status == 503


async def test_a_request_that_comes_after_the_end_gets_a_503_at_once(
    serve: ServePlane, scripted: StartScripted
) -> None:
    box = await scripted(Event())
    plane = await serve([box], StaticStep("x"))
    plane.dataplane.end_requests()
    answer = await plane.raw().chat(ADAPTER)
    assert (answer.status, box.requests) == (503, [])


async def test_an_answer_that_is_all_there_is_still_given(serve: ServePlane, scripted: StartScripted) -> None:
    box = await scripted(STREAM_HEAD, chunked(*NUMBERED), END)
    plane = await serve([box])
    answer = asyncio.ensure_future(plane.raw().chat(ADAPTER, read_bytes_per_s=20_000))  # noqa: TID251
    await eventually(lambda: _committed(plane))
    plane.dataplane.end_requests()
    assert check_stream(await answer).whole


async def test_a_client_that_does_not_read_is_cut_off_when_the_server_ends_and_that_is_no_defect(
    serve: ServePlane, scripted: StartScripted, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    flood = chunked(event(choice(content="x" * 10_000))) * 10
    box = await scripted(STREAM_HEAD, *[flood] * 2000, END)
    plane = await serve([box])
    _, writer = await connect(plane)
    body = b'{"model":"acme_v3","messages":[],"stream":true}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await eventually(lambda: _committed(plane))
    plane.dataplane.end_requests()
    plane.cancel_all()
    await eventually(lambda: plane.idle)
    assert [record for record in caplog.records if record.exc_info] == []
    assert plane.alarms.current() == ()


def _committed(plane: Plane) -> bool:
    return plane.metrics.attempts.value("box:a", "committed") == 1
