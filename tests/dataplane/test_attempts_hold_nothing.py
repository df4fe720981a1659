"""Whatever becomes of an attempt, its permit and its connection come back."""

from __future__ import annotations

import asyncio
import gc
from asyncio import Event

import pytest

from gateway.errors import NotAdmitted, Reason, UpstreamStatus
from gateway.fleet.box import Box
from gateway.policy.compiled import BaseStep, StaticStep
from tests.dataplane.conftest import Connect, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, KEY, Plane
from tests.dataplane.scripted_box import END, NUMBERED, STREAM_HEAD, chunked, whole
from tests.support.checker import check_plain
from tests.support.eventually import eventually
from tests.support.raw_client import Recording

CHAT = "/v1/chat/completions"


def now() -> float:
    return asyncio.get_running_loop().time()


async def ask_with(plane: Plane, extra: bytes) -> Recording:
    return await plane.raw().ask(CHAT, b'{"model":"acme_v3","messages":[]' + extra + b"}")


@pytest.mark.parametrize("extra", [b',"x":"\xff"', b',"x":1e999'])
async def test_a_request_that_cannot_be_rewritten_for_the_base_takes_no_permit(
    serve: ServePlane, scripted: StartScripted, extra: bytes
) -> None:
    box = await scripted(whole(b"{}", status=404))
    plane = await serve([box], BaseStep())
    assert (await ask_with(plane, extra)).status == 400
    assert plane.idle
    assert len(box.requests) == 1


async def test_a_box_found_hung_ends_its_plain_attempts_at_once(serve: ServePlane, scripted: StartScripted) -> None:
    silent = await scripted(Event())
    plane = await serve([silent], StaticStep("reduced"))
    answer = asyncio.ensure_future(plane.raw().chat(ADAPTER, stream=False))  # noqa: TID251
    await eventually(lambda: silent.requests)
    plane.fleets.all()[0].eject(now(), "no token for 5 s")
    seen = check_plain(await answer, text="reduced")
    assert seen.violations == []
    assert seen.degraded is not None
    assert seen.degraded["reason"] == "ttft_budget"
    await eventually(lambda: plane.idle)


async def test_an_ejection_and_the_clients_leaving_at_once_leave_nothing_behind(
    serve: ServePlane, scripted: StartScripted, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    silent = await scripted(Event())
    plane = await serve([silent], StaticStep("reduced"))
    _, writer = await connect(plane)
    body = b'{"model":"acme_v3","messages":[]}'
    head = f"POST {CHAT} HTTP/1.1\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await eventually(lambda: silent.requests)
    writer.transport.abort()
    plane.fleets.all()[0].eject(now(), "no token for 5 s")
    await eventually(lambda: plane.idle)
    assert caplog.records == []


async def test_a_box_whose_trial_for_the_adapter_is_taken_may_still_serve_the_base(
    serve: ServePlane, scripted: StartScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await scripted(whole(b'{"model":"base","choices":[{"message":{},"finish_reason":"stop"}]}'))
    plane = await serve([box], BaseStep())
    (served,) = plane.fleets.all()
    permit = served.admit(ADAPTER, now())
    assert permit is not None
    permit.failed(UpstreamStatus(404), now())
    # As if the plan had been made just before another request took the one trial that is allowed.
    real = Box.condition
    looks = iter([None])
    monkeypatch.setattr(Box, "condition", lambda self, adapter, at: next(looks, real(self, adapter, at)))
    answer = await plane.raw().chat(ADAPTER, stream=False)
    assert answer.headers["x-failsoft-served-by"] == "base:a"
    assert answer.headers["x-failsoft-degraded"] == Reason.ADAPTER_UNAVAILABLE
    assert answer.headers["x-failsoft-attempts"] == "1"


def test_not_admitted_says_why() -> None:
    assert NotAdmitted("x").reason is Reason.CIRCUIT_OPEN


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answered_request_leaves_no_work_for_the_cycle_collector(
    serve: ServePlane, scripted: StartScripted, stream: bool
) -> None:
    answer = whole(b'{"model":"acme_v3","choices":[{"message":{},"finish_reason":"stop"}]}')
    box = await scripted(*([STREAM_HEAD, chunked(*NUMBERED), END] if stream else [answer]))
    plane = await serve([box])
    body = b'{"model":"acme_v3","messages":[],"stream":%b}' % (b"true" if stream else b"false")

    async def ask() -> None:
        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body}

        async def send(message: dict[str, object]) -> None:
            pass

        headers = [(b"authorization", b"Bearer " + KEY.encode())]
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers}
        await asyncio.get_running_loop().create_task(plane.dataplane(scope, receive, send))

    await ask()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await ask()
        left = gc.collect()
    finally:
        gc.enable()
    assert left < 20
