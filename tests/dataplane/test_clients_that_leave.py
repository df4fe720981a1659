"""Clients that leave, do not read, or do not finish sending: nothing is held for them for long."""

from __future__ import annotations

import asyncio
import json
from asyncio import Event

import pytest

from gateway.dataplane import patience
from gateway.errors import UpstreamStatus
from gateway.policy.compiled import BaseStep
from tests.dataplane.conftest import Connect, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, KEY, provider_step
from tests.dataplane.scripted_box import END, NUMBERED, STREAM_HEAD, chunked
from tests.support.checker import check_error, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Simulator
from tests.support.streams import choice, event

CHAT = "/v1/chat/completions"
TEXT = b"y" + b"x" * 10_000
EVENT = event(choice(content=TEXT.decode()))
FLOOD = chunked(EVENT) * 10


def head(*more: str) -> bytes:
    lines = [f"POST {CHAT} HTTP/1.1", "host: x", f"authorization: Bearer {KEY}", *more, "", ""]
    return "\r\n".join(lines).encode()


def request(**fields: object) -> bytes:
    body = json.dumps({"model": ADAPTER, "messages": [], **fields}).encode()
    return head(f"content-length: {len(body)}") + body


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SILENCE_S", 0.2)


async def test_a_client_that_leaves_in_mid_stream_has_its_request_cancelled_at_the_box(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    for box in boxes:
        box.admin.fault("stall", seconds=None)
    plane = await serve(boxes)
    answer = await plane.raw().chat(ADAPTER, leave_after=b" 1")
    assert answer.end == "left"
    await eventually(lambda: plane.idle)
    (asked,) = [r for box in boxes for r in box.admin.requests(model=ADAPTER)]
    await eventually(lambda: [r for box in boxes for r in box.admin.requests(model=ADAPTER) if r["client_left"]])
    (asked,) = [r for box in boxes for r in box.admin.requests(model=ADAPTER)]
    assert asked["client_left_after_s"] < 1
    assert plane.metrics.client_disconnects.value() == 1
    assert all(box.breaker.closed for box in plane.fleets.all())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["own", "base", "provider"])
async def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(
    serve: ServePlane, scripted: StartScripted, connect: Connect, stream: bool, where: str
) -> None:
    silent = await scripted(Event())
    if where == "provider":
        plane = await serve([], provider_step(silent.url))
    else:
        plane = await serve([silent], *([BaseStep()] if where == "base" else []))
    if where == "base":
        permit = plane.fleets.all()[0].admit(ADAPTER, 0.0)
        assert permit is not None
        permit.failed(UpstreamStatus(404), asyncio.get_running_loop().time())
    reader, writer = await connect(plane)
    writer.write(request(stream=stream))
    await eventually(lambda: silent.requests)
    assert not plane.idle
    writer.close()
    await eventually(lambda: silent.left == 1 and plane.idle, within_s=1.0)
    assert plane.metrics.client_disconnects.value() == 1
    assert (await reader.read()) == b""


async def test_a_client_that_leaves_before_its_body_is_complete_is_no_error(
    serve: ServePlane, connect: Connect
) -> None:
    plane = await serve([])
    _, writer = await connect(plane)
    writer.write(head("content-length: 100") + b'{"mod')
    await eventually(lambda: plane.running)
    writer.close()
    await eventually(lambda: plane.idle)
    assert plane.metrics.client_disconnects.value() == 1


async def test_a_client_that_leaves_while_it_is_refused_is_no_error(
    serve: ServePlane, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    plane = await serve([], options={"body_limit": 1000})
    _, writer = await connect(plane)
    writer.write(head("content-length: 100000") + b"x")
    await eventually(lambda: plane.running)
    await asyncio.sleep(0)
    writer.transport.abort()
    await eventually(lambda: plane.idle)
    assert caplog.records == []


async def test_for_a_client_that_does_not_read_the_box_is_not_read_either(
    serve: ServePlane, scripted: StartScripted, connect: Connect
) -> None:
    box = await scripted(STREAM_HEAD, *[FLOOD] * 600, chunked(*NUMBERED[-2:]), END)
    plane = await serve([box], stall_timeout_s=0.2)
    reader, writer = await connect(plane)
    writer.write(request(stream=True))
    before = -1
    while box.sent_bytes != before or not before:
        before = box.sent_bytes
        # Longer than the stall time-out, which is about the box and not about the client.
        await asyncio.sleep(0.3)
    # What is on its way lies in the kernel's buffers of two connections.
    assert before < 400 * len(FLOOD)
    received = b""
    texts = 0
    while b"[DONE]" not in received[-200:]:
        data = await reader.read(1 << 20)
        assert data, received[-300:]
        texts += (received[-len(EVENT) :] + data).count(TEXT) - received[-len(EVENT) :].count(TEXT)
        received = received[-len(EVENT) :] + data
    assert texts == 6000
    writer.close()
    await eventually(lambda: plane.idle)


async def test_a_client_that_never_reads_is_given_up(
    serve: ServePlane, scripted: StartScripted, connect: Connect, impatient: None
) -> None:
    box = await scripted(STREAM_HEAD, *[FLOOD] * 2000, END)
    plane = await serve([box])
    _, writer = await connect(plane)
    writer.write(request(stream=True))
    await eventually(lambda: box.requests)
    await eventually(lambda: plane.idle, within_s=5.0)
    assert all(one.breaker.closed for one in plane.fleets.all())
    writer.close()


async def test_a_client_that_reads_slowly_is_not_given_up(
    serve: ServePlane, scripted: StartScripted, connect: Connect, impatient: None
) -> None:
    box = await scripted(STREAM_HEAD, *[FLOOD] * 40, chunked(*NUMBERED[-2:]), END)
    plane = await serve([box])
    reader, writer = await connect(plane)
    writer.write(request(stream=True))
    received = b""
    while b"[DONE]" not in received[-200:]:
        data = await reader.read(1 << 16)
        assert data
        received += data
        await asyncio.sleep(0.01)
    writer.close()


async def test_a_body_that_never_ends_is_given_up(serve: ServePlane, impatient: None) -> None:
    plane = await serve([])
    for start in (
        head("content-length: 100"),
        head("content-length: 100") + b'{"mod',
        head("transfer-encoding: chunked"),
    ):
        answer = await plane.raw().ask(CHAT, raw=start, timeout_s=10)
        assert check_error(answer).violations == []
        assert (answer.status, answer.headers["connection"]) == (408, "close")
    await eventually(lambda: plane.idle)


async def test_a_body_that_comes_slowly_is_taken(
    serve: ServePlane, impatient: None, boxes: list[Simulator], connect: Connect
) -> None:
    plane = await serve(boxes)
    reader, writer = await connect(plane)
    for at in range(0, len(sent := request(stream=True)), 20):
        writer.write(sent[at : at + 20])
        await asyncio.sleep(0.06)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    writer.close()
    await eventually(lambda: plane.idle)


async def test_a_long_wait_for_the_box_is_not_the_clients_silence(
    serve: ServePlane, scripted: StartScripted, impatient: None
) -> None:
    box = await scripted(0.8, STREAM_HEAD, chunked(*NUMBERED[:4]), 0.8, chunked(*NUMBERED[4:]), END)
    plane = await serve([box])
    assert check_stream(await plane.raw().chat(ADAPTER)).whole
