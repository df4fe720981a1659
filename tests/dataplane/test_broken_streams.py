"""Streams that break after their first content: never silently, never with an invented finish."""

from __future__ import annotations

from asyncio import Event
from typing import Any

import openai
import pytest

from gateway.dataplane import attempt as attempts
from gateway.policy.compiled import StaticStep
from gateway.upstream.provider_answer import AnswerShape
from tests.dataplane.conftest import ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, provider_step
from tests.dataplane.scripted_box import END, NUMBERED, STREAM_HEAD, chunked
from tests.support.checker import check_stream
from tests.support.eventually import eventually
from tests.support.streams import event

MESSAGES: list[Any] = [{"role": "user", "content": "hello"}]
SOME = chunked(*NUMBERED[:4])
ERROR = b'data: {"error":{"message":"EngineCore died at 10.0.0.7","type":"InternalServerError","code":500}}\n\n'
BREAKS: dict[str, tuple[bytes | Event, ...]] = {
    "a clean end without a finish": (END,),
    "an error event": (chunked(ERROR, NUMBERED[-1]), END),
    "half an event": (chunked(b'data: {"choices":[{"ind'), END),
    "no JSON": (chunked(b"data: {oops}\n\n"), END),
    "abort": (chunked(event({"index": 0, "delta": {}, "finish_reason": "abort"})), END),
    "done without a finish": (chunked(NUMBERED[-1]), END),
    "not HTTP": (b"zzz\r\n",),
    "silence": (Event(),),
}


@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_that_breaks_ends_with_an_error_event_and_done(
    serve: ServePlane, scripted: StartScripted, how: str
) -> None:
    box = await scripted(STREAM_HEAD, SOME, 0.02, *BREAKS[how])
    plane = await serve([box], StaticStep("never shown"), stall_timeout_s=0.3)
    answer = await plane.raw().chat(ADAPTER)
    seen = check_stream(answer)
    assert seen.violations == []
    assert seen.done
    assert seen.error is not None
    assert seen.error["code"] == "stream_broken"
    assert "10.0.0.7" not in seen.error["message"]
    assert seen.choices[0].finishes == []
    await eventually(lambda: plane.idle)
    assert plane.metrics.streams_broken.value("box:a") == 1


async def test_the_sdk_raises_what_broke_the_stream(serve: ServePlane, scripted: StartScripted) -> None:
    box = await scripted(STREAM_HEAD, SOME, 0.02, END)
    plane = await serve([box])
    said = ""
    stream = await plane.sdk().chat.completions.create(model=ADAPTER, messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="broke off") as caught:  # noqa: PT012
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""
    assert said == "acme: 0 1"
    assert caught.value.code == "stream_broken"


@pytest.mark.parametrize("how", ["an error event", "no JSON", "abort", "done without a finish"])
async def test_what_breaks_together_with_its_first_content_was_shown_to_nobody_and_is_made_good(
    serve: ServePlane, scripted: StartScripted, how: str
) -> None:
    (breaks, end) = BREAKS[how]
    assert isinstance(breaks, bytes)
    box = await scripted(STREAM_HEAD + SOME + breaks, end)
    plane = await serve([box], StaticStep("reduced"))
    seen = check_stream(await plane.raw().chat(ADAPTER), text="reduced")
    assert seen.whole
    assert seen.degraded is not None
    assert seen.degraded["reason"] == "backend_down"


async def test_keep_alive_comments_do_not_hide_a_stall(serve: ServePlane, scripted: StartScripted) -> None:
    comments = [step for _ in range(20) for step in (chunked(b": keep-alive\n\n"), 0.1)]
    box = await scripted(STREAM_HEAD, SOME, *comments)
    plane = await serve([box], stall_timeout_s=0.4)
    answer = await plane.raw().chat(ADAPTER)
    assert check_stream(answer).error is not None
    assert answer.body.count(b"keep-alive") < 10


async def test_a_stream_that_lost_only_its_terminator_is_whole(serve: ServePlane, scripted: StartScripted) -> None:
    box = await scripted(STREAM_HEAD, chunked(*NUMBERED[:-1]), 0.02, b"zzz\r\n")
    plane = await serve([box])
    assert check_stream(await plane.raw().chat(ADAPTER)).whole


async def test_a_defect_of_ours_in_mid_stream_is_an_error_event_and_an_alarm(
    serve: ServePlane, scripted: StartScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Defective(AnswerShape):
        def frame(self, data: bytes) -> bytes | None:
            if b'" 1"' in data:
                raise RuntimeError("a secret detail")
            return super().frame(data)

    monkeypatch.setattr(attempts, "AnswerShape", Defective)
    box = await scripted(STREAM_HEAD, chunked(*NUMBERED[:3]), 0.02, chunked(*NUMBERED[3:]), END)
    plane = await serve([], provider_step(box.url))
    seen = check_stream(await plane.raw().chat(ADAPTER))
    assert seen.violations == []
    assert seen.error is not None
    assert "secret" not in seen.error["message"]
    assert [alarm.kind for alarm in plane.alarms.current()] == ["internal_error"]


async def test_a_defect_of_ours_before_the_first_content_goes_to_the_next_step(
    serve: ServePlane, scripted: StartScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*args: object) -> Any:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(attempts, "translate", defective)
    plane = await serve([], provider_step("http://127.0.0.1:1"), StaticStep("reduced"))
    assert check_stream(await plane.raw().chat(ADAPTER), text="reduced").whole
    assert [alarm.kind for alarm in plane.alarms.current()] == ["internal_error"]
