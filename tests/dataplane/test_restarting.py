"""`on_broken_stream: restart`: a stream of which nothing but blanks was told is asked for anew, as one answer."""

from __future__ import annotations

import asyncio
import random
from asyncio import Event
from typing import Any

import openai
import pytest

from gateway.policy.compiled import BaseStep, StaticStep
from tests.dataplane.conftest import TOKENS, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, GENERIC_MODEL, Plane, provider_step
from tests.dataplane.scripted_box import END, STREAM_HEAD, ScriptedBox, chunked
from tests.support.checker import Seen, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Simulator
from tests.support.raw_client import Recording
from tests.support.streams import DONE, choice, event

ROLE = event(choice(role="assistant", content=""))
DEAD = "http://127.0.0.1:9"
DEGRADED = {
    "reason": "stream_broken",
    "requested_model": ADAPTER,
    "served_model": GENERIC_MODEL,
    "served_by": "provider:hosted",
}


def numbered(name: str) -> str:
    return f"{name}:" + "".join(f" {n}" for n in range(TOKENS - 2)) + f" end/{TOKENS - 2}"


class Breaking:
    """A box that says the role and one event more, and ends without a word once its first stream was committed."""

    def __init__(self, box: ScriptedBox, go: Event) -> None:
        self.box = box
        self.go = go

    async def ask(self, plane: Plane, path: str | None = None, at: str = "box:a", **fields: Any) -> Recording:
        raw = plane.raw()
        if path is None:
            asking = raw.chat(ADAPTER, **fields)
        else:
            asking = raw.ask(path, {"model": ADAPTER, "prompt": "hi", "stream": True, **fields})
        answer = asyncio.ensure_future(asking)  # noqa: TID251
        await eventually(lambda: plane.metrics.attempts.value(at, "committed"))
        self.go.set()
        return await answer


async def breaking(
    scripted: StartScripted, said: bytes = b"", *, content: str = "\n\n", first: bytes = ROLE
) -> Breaking:
    go = Event()
    return Breaking(await scripted(STREAM_HEAD, chunked(first, said or event(choice(content=content))), go, END), go)


def one_answer(answer: Recording, text: str) -> Seen:
    seen = check_stream(answer, text=text)
    assert seen.violations == []
    assert seen.error is None
    return seen


def used(plane: Plane) -> dict[tuple[str, str], int]:
    """Answers that are counted, and paid for, by who gave them and why."""
    usage = plane.dataplane._books._accounts.usage
    return {(kind, reason): cell[0] for (_, kind, reason), cell in usage.total.items()}


def an_error(answer: Recording) -> dict[str, Any]:
    seen = check_stream(answer, text="")
    assert [code for code in seen.codes if code != "text"] == []
    assert seen.error is not None
    assert seen.degraded is None or seen.degraded["reason"] != "stream_broken"
    return seen.error


@pytest.mark.parametrize("blank", [" ", "\n\n", "\t \u3000"])
async def test_the_provider_is_asked_anew_and_the_mark_is_in_the_first_event_that_is_its_own(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator, blank: str
) -> None:
    broken = await breaking(scripted, content=blank)
    plane = await serve([broken.box], provider_step(hosted.url), on_broken_stream="restart")
    answer = await broken.ask(plane, stream_options={"include_usage": True})
    seen = one_answer(answer, blank + numbered("generic"))
    assert seen.degraded == DEGRADED
    assert seen.usage is not None
    assert seen.usage["completion_tokens"] == TOKENS
    # What went out before cannot be taken back: headers and first event are the own adapter's.
    assert answer.headers["x-failsoft-served-by"] == "box:a"
    assert "x-failsoft-degraded" not in answer.headers
    assert seen.events[0]["model"] == seen.events[-1]["model"] == "acme"
    (asked,) = hosted.admin.requests()
    assert [message["role"] for message in asked["body"]["messages"]] == ["user"]
    assert plane.metrics.stream_resumes.value("acme", "degraded") == 1
    assert {one.kind for one in plane.events.since(0)} >= {"stream_restarted", "degraded"}
    await eventually(lambda: plane.idle)


async def test_another_box_with_the_adapter_comes_first_and_its_answer_has_no_mark(
    serve: ServePlane, scripted: StartScripted, boxes: list[Simulator], hosted: Simulator
) -> None:
    at = (await (await serve(boxes)).raw().chat(ADAPTER)).headers["x-failsoft-served-by"]
    broken = await breaking(scripted)
    pair = [broken.box, boxes[1]] if at == "box:a" else [boxes[0], broken.box]
    plane = await serve(pair, provider_step(hosted.url), on_broken_stream="restart")
    seen = one_answer(await broken.ask(plane, at=at), "\n\n" + numbered(ADAPTER))
    assert seen.degraded is None
    assert hosted.admin.requests() == []
    assert plane.metrics.stream_resumes.value("acme", "restarted") == 1


async def test_where_all_boxes_break_the_provider_is_next(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator
) -> None:
    go = Event()
    script = (STREAM_HEAD, chunked(ROLE, event(choice(content=" "))), go, END)
    pair = [await scripted(*script), await scripted(*script)]
    plane = await serve(pair, provider_step(hosted.url), on_broken_stream="restart")
    answer = asyncio.ensure_future(plane.raw().chat(ADAPTER))  # noqa: TID251
    await eventually(lambda: plane.metrics.requests.value("acme", "box", "none"))
    go.set()
    assert one_answer(await answer, " " + numbered("generic")).degraded == DEGRADED


@pytest.mark.parametrize(
    "said",
    [
        choice(content=" a"),
        choice(reasoning="hm"),
        choice(refusal="no"),
        choice(
            tool_calls=[{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]
        ),
    ],
    ids=["text", "reasoning", "a refusal", "a tool call"],
)
async def test_once_more_than_blanks_was_told_the_stream_ends_with_an_error(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator, said: dict[str, Any]
) -> None:
    broken = await breaking(scripted, event(said))
    plane = await serve([broken.box], provider_step(hosted.url), on_broken_stream="restart")
    assert an_error(await broken.ask(plane))["code"] == "stream_broken"
    assert hosted.admin.requests() == []
    assert plane.metrics.stream_resumes.value("acme", "failed") == 1


async def test_a_provider_s_stream_is_asked_for_anew_at_the_next_step(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator
) -> None:
    broken = await breaking(scripted)
    steps = [provider_step(broken.box.url, name="first"), provider_step(hosted.url)]
    plane = await serve([DEAD], *steps, on_broken_stream="restart")
    answer = await broken.ask(plane, at="provider:first")
    seen = one_answer(answer, "\n\n" + numbered("generic"))
    assert answer.headers["x-failsoft-degraded"] == "backend_down"
    assert used(plane) == {("provider:first", "backend_down"): 1, ("provider:hosted", "stream_broken"): 1}
    assert seen.events[0]["degraded"]["served_by"] == "provider:first"
    assert seen.degraded == DEGRADED
    await eventually(lambda: plane.idle)


async def test_what_was_begun_as_another_model_s_answer_does_not_become_the_own_adapter_s(
    serve: ServePlane, scripted: StartScripted, boxes: list[Simulator]
) -> None:
    """Its headers and its first event would say something else than is true."""
    broken = await breaking(scripted)
    plane = await serve(boxes, provider_step(broken.box.url, name="first"), on_broken_stream="restart")
    for box in boxes:
        box.admin.fault("status", status=500, count=1)
    answer = await broken.ask(plane, at="provider:first")
    assert answer.headers["x-failsoft-served-by"] == "provider:first"
    an_error(answer)
    assert used(plane) == {("provider:first", "backend_down"): 1}


async def test_the_base_may_be_what_is_asked_anew(
    serve: ServePlane, scripted: StartScripted, boxes: list[Simulator]
) -> None:
    broken = await breaking(scripted)
    plane = await serve(
        [DEAD, boxes[1]], provider_step(broken.box.url, name="first"), BaseStep(), on_broken_stream="restart"
    )
    boxes[1].admin.fault("adapter_missing", adapter=ADAPTER)
    seen = one_answer(await broken.ask(plane, at="provider:first"), "\n\n" + numbered("base"))
    assert seen.degraded == {**DEGRADED, "served_model": "base", "served_by": "base:b"}


async def test_fixed_text_takes_the_place_of_a_stream_too(serve: ServePlane, scripted: StartScripted) -> None:
    broken = await breaking(scripted)
    plane = await serve([broken.box], StaticStep("reduced"), on_broken_stream="restart")
    seen = one_answer(await broken.ask(plane), "\n\nreduced")
    assert seen.degraded == {**DEGRADED, "served_model": "static", "served_by": "static"}
    await eventually(lambda: plane.idle)


async def test_without_a_fallback_it_ends_with_an_error(serve: ServePlane, scripted: StartScripted) -> None:
    """So of a customer whose tokens are to stay at home: its providers are dropped when its policy is compiled."""
    broken = await breaking(scripted)
    plane = await serve([broken.box], on_broken_stream="restart")
    an_error(await broken.ask(plane))


async def test_who_wants_its_own_adapter_or_an_error_gets_the_error(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator
) -> None:
    broken = await breaking(scripted)
    plane = await serve([broken.box], provider_step(hosted.url), on_broken_stream="restart")
    an_error(await broken.ask(plane, headers={"x-failsoft-fallback": "never"}))
    assert hosted.admin.requests() == []


async def test_the_deadline_is_that_of_the_whole_request(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator
) -> None:
    stalls = await scripted(STREAM_HEAD, chunked(ROLE, event(choice(content=" "))), Event())
    plane = await serve([stalls], provider_step(hosted.url), on_broken_stream="restart", stall_timeout_s=0.4)
    an_error(await plane.raw().chat(ADAPTER, headers={"x-request-timeout-ms": "350"}))
    assert hosted.admin.requests() == []


async def test_a_stall_counts_as_a_break(serve: ServePlane, scripted: StartScripted, hosted: Simulator) -> None:
    stalls = await scripted(STREAM_HEAD, chunked(ROLE, event(choice(content=" "))), Event())
    plane = await serve([stalls], provider_step(hosted.url), on_broken_stream="restart", stall_timeout_s=0.2)
    assert one_answer(await plane.raw().chat(ADAPTER), " " + numbered("generic")).degraded == DEGRADED
    await eventually(lambda: stalls.left == 1)


async def test_a_provider_that_breaks_as_well_ends_it_with_an_error(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator
) -> None:
    broken = await breaking(scripted)
    hosted.admin.fault("truncate", after_chunks=4)
    plane = await serve([broken.box], provider_step(hosted.url), on_broken_stream="restart")
    seen = check_stream(await broken.ask(plane), text="\n\n" + numbered("generic"))
    assert seen.violations == []
    assert seen.error is not None


async def test_a_completion_is_asked_for_anew_at_a_provider_that_speaks_chat(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator
) -> None:
    def text(said: str, finish: str | None = None) -> bytes:
        return event({"index": 0, "text": said, "finish_reason": finish}, object="text_completion")

    broken = await breaking(scripted, text(" \n"), first=text(""))
    plane = await serve([broken.box], provider_step(hosted.url), on_broken_stream="restart")
    seen = one_answer(await broken.ask(plane, "/v1/completions"), " \n" + numbered("generic"))
    assert seen.degraded == DEGRADED


async def test_the_sdk_reads_one_answer_and_its_mark(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator
) -> None:
    broken = await breaking(scripted)
    plane = await serve([broken.box], provider_step(hosted.url), on_broken_stream="restart")
    marks = []
    async with plane.sdk().chat.completions.stream(
        model=ADAPTER, messages=[{"role": "user", "content": "hello"}]
    ) as stream:
        async for one in stream:
            if one.type == "chunk":
                marks.append((one.chunk.model_extra or {}).get("degraded"))
                broken.go.set()
        answer = await stream.get_final_completion()
    message = answer.choices[0].message
    assert (message.role, message.content) == ("assistant", "\n\n" + numbered("generic"))
    assert [mark for mark in marks if mark] == [DEGRADED]


async def test_the_sdk_raises_where_there_is_nothing_to_begin_anew_with(
    serve: ServePlane, scripted: StartScripted
) -> None:
    broken = await breaking(scripted)
    plane = await serve([broken.box], on_broken_stream="restart")
    stream = await plane.sdk().chat.completions.create(
        model=ADAPTER, messages=[{"role": "user", "content": "hello"}], stream=True
    )
    assert (await anext(stream)).choices[0].delta.role == "assistant"
    broken.go.set()
    with pytest.raises(openai.APIError, match="broke off"):
        async for _ in stream:
            pass


async def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator
) -> None:
    broken = await breaking(scripted)
    hosted.admin.fault("hang_before_headers")
    plane = await serve([broken.box], provider_step(hosted.url), on_broken_stream="restart")
    await broken.ask(plane, leave_after=b": the upstream was lost")
    await eventually(lambda: plane.idle)


@pytest.mark.parametrize("seed", range(24))
async def test_wherever_it_breaks_the_answer_is_whole_or_ends_with_an_error(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator, seed: int
) -> None:
    chance = random.Random(seed)
    pieces = [chance.choice([" ", "\n", "\n\n", *(["A", " b"] if chance.random() < 0.5 else [])]) for _ in range(6)]
    told = pieces[: chance.randrange(1, len(pieces))]
    go = Event()
    box = await scripted(STREAM_HEAD, chunked(ROLE, *(event(choice(content=piece)) for piece in told)), go, END)
    plane = await serve([box], provider_step(hosted.url), on_broken_stream="restart")
    answer = await Breaking(box, go).ask(plane)
    text = "".join(told)
    if text.strip():
        seen = check_stream(answer, text=text)
        assert seen.violations == []
        assert seen.error is not None
        assert (seen.text, hosted.admin.requests()) == (text, [])
    else:
        assert one_answer(answer, text + numbered("generic")).degraded == DEGRADED


# Where streams are to be resumed.


@pytest.mark.parametrize("blank", ["\n\n", " \n", "\n"])
async def test_a_box_that_goes_on_behind_nothing_but_blanks_may_begin_with_others(
    serve: ServePlane, scripted: StartScripted, boxes: list[Simulator], blank: str
) -> None:
    at = (await (await serve(boxes)).raw().chat(ADAPTER)).headers["x-failsoft-served-by"]
    broken = await breaking(scripted, content=blank)
    whole = chunked(ROLE, event(choice(content="\n")), event(choice(content="A")), event(choice(finish="stop")), DONE)
    other = await scripted(STREAM_HEAD, whole, END)
    pair = [broken.box, other] if at == "box:a" else [other, broken.box]
    plane = await serve(pair, on_broken_stream="resume")
    assert one_answer(await broken.ask(plane, at=at), f"{blank}A").degraded is None


async def test_no_model_takes_the_place_of_another_where_streams_are_to_be_resumed(
    serve: ServePlane, scripted: StartScripted, hosted: Simulator
) -> None:
    broken = await breaking(scripted)
    plane = await serve([broken.box], provider_step(hosted.url), on_broken_stream="resume")
    an_error(await broken.ask(plane))
    assert hosted.admin.requests() == []
