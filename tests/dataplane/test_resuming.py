"""A stream that breaks goes on at another box, and its client sees one answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest

from tests.dataplane.conftest import TOKENS, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, Plane, provider_step
from tests.dataplane.scripted_box import END, STREAM_HEAD, chunked
from tests.support.checker import Seen, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording
from tests.support.streams import event

BREAKS: dict[str, dict[str, Any]] = {
    "a reset": {"kind": "reset_mid_stream"},
    "a cut": {"kind": "truncate"},
    "a clean end without a finish": {"kind": "done_without_finish"},
    "an error event": {"kind": "error_frame_mid"},
    "abort": {"kind": "abort"},
    "a stall": {"kind": "stall", "seconds": None},
    "no JSON": {"kind": "malformed_frame"},
}
TOOL = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}
WHOLE = f"{ADAPTER}:" + "".join(f" {n}" for n in range(TOKENS - 2)) + f" end/{TOKENS - 2}"


class Pair:
    """Two boxes, of which the one that is asked first breaks its streams; ``other`` is to go on with them."""

    def __init__(self, plane: Plane, first: Simulator, other: Simulator) -> None:
        self.plane = plane
        self.first = first
        self.other = other

    async def ask(self, **fields: Any) -> Recording:
        return await self.plane.raw().chat(ADAPTER, **fields)

    async def complete(self, **fields: Any) -> Recording:
        body = {"model": ADAPTER, "prompt": "once upon a time", "stream": True, **fields}
        return await self.plane.raw().ask("/v1/completions", body)

    @property
    def resumed(self) -> float:
        return self.plane.metrics.stream_resumes.value("acme", "resumed")

    async def resume(self, ask: Callable[[], Awaitable[Recording]]) -> tuple[Seen, dict[str, Any]]:
        """An answer that went on at the other box, and the body with which that was asked for the rest.

        On a busy machine all that the first box sends may come at once: it has then broken before anything was told,
        and the other box is asked for the whole.
        """
        for _ in range(50):
            self.other.admin.forget()
            before = self.resumed
            seen = one_answer(await ask())
            if self.resumed > before:
                (body,) = [entry["body"] for entry in self.other.admin.requests() if entry["path"] != "/tokenize"]
                return seen, body
        raise AssertionError("it never broke behind its commit")


@pytest.fixture(scope="module")
def paced(session_processes: Processes) -> list[Simulator]:
    """Three boxes whose tokens come one by one, so that a stream is committed before it breaks."""
    started = [
        session_processes.box(name=f"paced-{name}", adapters=[ADAPTER], tokens=TOKENS, itl_ms=10) for name in "abc"
    ]
    for box in started:
        box.wait_ready()
    return started


@pytest.fixture
def three(paced: list[Simulator]) -> Iterator[list[Simulator]]:
    """All of them, without faults and with empty journals."""
    for box in paced:
        box.admin.heal()
        box.admin.forget()
    yield paced
    for box in paced:
        box.admin.heal()


@pytest.fixture
def boxes(three: list[Simulator]) -> list[Simulator]:
    """Two of them."""
    return three[:2]


async def pair_of(
    serve: ServePlane,
    boxes: list[Simulator],
    kind: str = "truncate",
    policy: dict[str, Any] | None = None,
    **knobs: Any,
) -> Pair:
    """The first box breaks every stream behind four events."""
    plane = await serve(boxes, on_broken_stream="resume", stall_timeout_s=0.3, **(policy or {}))
    at = (await plane.raw().chat(ADAPTER)).headers["x-failsoft-served-by"].removeprefix("box:")
    first, other = boxes if at == "a" else boxes[::-1]
    for box in boxes:
        box.admin.forget()
    first.admin.fault(kind, **{"after_chunks": 4, **knobs})
    return Pair(plane, first, other)


def one_answer(answer: Recording) -> Seen:
    """It has no flaw, and no trace of what happened."""
    seen = check_stream(answer)
    assert seen.violations == []
    assert seen.error is None
    assert seen.whole
    return seen


@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_that_breaks_goes_on_at_the_other_box_without_gap_or_repeat(
    serve: ServePlane, boxes: list[Simulator], how: str
) -> None:
    pair = await pair_of(serve, boxes, **BREAKS[how])
    seen, asked = await pair.resume(pair.ask)
    assert (seen.choices[0].text, seen.choices[0].finishes) == (WHOLE, ["stop"])
    assert seen.degraded is None
    assert asked["messages"][-1]["role"] == "assistant"
    assert WHOLE.startswith(asked["messages"][-1]["content"])
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)
    assert pair.plane.metrics.streams_broken.value(f"box:{'a' if pair.first is boxes[0] else 'b'}") == 0
    await eventually(lambda: pair.plane.idle)


async def test_a_completion_goes_on_behind_a_longer_prompt(serve: ServePlane, boxes: list[Simulator]) -> None:
    pair = await pair_of(serve, boxes)
    seen, asked = await pair.resume(lambda: pair.complete(max_tokens=100))
    assert seen.choices[0].text == WHOLE
    assert asked["prompt"].startswith("once upon a time" + f"{ADAPTER}:")
    assert asked["max_tokens"] < 100


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_what_was_said_is_taken_off_the_limit(serve: ServePlane, boxes: list[Simulator], limit: str) -> None:
    pair = await pair_of(serve, boxes)
    usage = {"include_usage": True}
    seen, asked = await pair.resume(lambda: pair.ask(**{limit: 8}, stream_options=usage))
    assert asked[limit] < 8
    assert seen.choices[0].text == f"{ADAPTER}: 0 1 2 3 4 5 6"
    assert seen.choices[0].finishes == ["length"]
    assert seen.usage is not None
    assert seen.usage["completion_tokens"] == 8


async def test_a_completion_without_a_limit_has_the_engine_s_own(serve: ServePlane, boxes: list[Simulator]) -> None:
    pair = await pair_of(serve, boxes)
    _, asked = await pair.resume(pair.complete)
    said = len(asked["prompt"].removeprefix("once upon a time").split())
    assert asked["max_tokens"] == 16 - said


@pytest.mark.parametrize("limit", [3, 4])
async def test_where_the_limit_is_used_up_an_answer_ends_by_it(
    serve: ServePlane, boxes: list[Simulator], limit: int
) -> None:
    """With the role that is an event more than the limit: the last token comes with the finish."""
    pair = await pair_of(serve, boxes, after_chunks=limit + 1)
    plain = one_answer(await RawClient(pair.other.url).chat(ADAPTER, max_tokens=limit))
    # Two tokens at once, as a busy engine has them, and the finish is still to come.
    seen = one_answer(await pair.ask(max_tokens=limit, stream_options={"include_usage": True}))
    assert (seen.choices[0].text, seen.choices[0].finishes) == (plain.choices[0].text, ["length"])
    assert seen.usage is not None
    assert seen.usage["completion_tokens"] == limit


ENDS_SO = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": f"{ADAPTER}: 0 1"}]
SEAM = {"continue_final_message": True, "add_generation_prompt": False}


@pytest.mark.parametrize("fields", [{"messages": ENDS_SO, **SEAM}, {"messages": ENDS_SO}, {}])
@pytest.mark.parametrize("after", range(2, 7))
async def test_an_echo_is_heard_once(
    serve: ServePlane, boxes: list[Simulator], fields: dict[str, Any], after: int
) -> None:
    asked = {**fields, "echo": True, "stream_options": {"include_usage": True}}
    undisturbed = check_stream(await RawClient(boxes[0].url).chat(ADAPTER, **asked), text=None)
    pair = await pair_of(serve, boxes, after_chunks=after)
    seen = check_stream(await pair.ask(**asked))
    assert (seen.text, seen.choices[0].finishes) == (undisturbed.text, ["stop"])
    assert seen.usage == undisturbed.usage
    assert seen.error is None
    assert seen.text.startswith(f"{ADAPTER}: 0 1")


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 5}, {"tools": [TOOL]}])
@pytest.mark.parametrize("how", ["reset_mid_stream", "truncate", "stall"])
async def test_a_usage_that_is_lost_behind_the_finish_comes_from_the_other_box(
    serve: ServePlane, boxes: list[Simulator], fields: dict[str, Any], how: str
) -> None:
    asked = {**fields, "stream_options": {"include_usage": True}}
    undisturbed = check_stream(await RawClient(boxes[0].url).chat(ADAPTER, **asked))
    assert undisturbed.usage is not None
    events = len(undisturbed.events)  # the last of which is the usage
    pair = await pair_of(serve, boxes, how, after_chunks=events - 1)
    seen = one_answer(await pair.ask(**asked))
    assert (seen.text, seen.choices[0].calls) == (undisturbed.text, undisturbed.choices[0].calls)
    assert seen.choices[0].finishes == undisturbed.choices[0].finishes
    # But for the ids, no other prompt was told, and no other number of tokens.
    assert {name: seen.usage[name] for name in undisturbed.usage} == undisturbed.usage if seen.usage else False
    assert pair.plane.metrics.stream_resumes.value("acme", "resumed") == 1


async def test_an_answer_whose_usage_is_lost_for_good_is_whole_without_it(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    pair = await pair_of(serve, boxes, after_chunks=TOKENS + 2)
    pair.other.admin.fault("refuse")
    seen = one_answer(await pair.ask(stream_options={"include_usage": True}))
    assert (seen.text, seen.choices[0].finishes, seen.usage) == (WHOLE, ["stop"], None)
    await eventually(lambda: pair.plane.idle)


async def test_no_usage_is_asked_for_that_no_client_wants(serve: ServePlane, boxes: list[Simulator]) -> None:
    pair = await pair_of(serve, boxes, after_chunks=TOKENS + 2)
    assert one_answer(await pair.ask()).text == WHOLE
    assert pair.other.admin.requests() == []


async def test_the_usage_is_the_sum_and_is_told_only_if_asked_for(serve: ServePlane, boxes: list[Simulator]) -> None:
    pair = await pair_of(serve, boxes)
    seen, _ = await pair.resume(lambda: pair.ask(stream_options={"include_usage": True}))
    assert seen.usage is not None
    assert seen.usage["completion_tokens"] == TOKENS
    assert seen.usage["total_tokens"] == seen.usage["prompt_tokens"] + TOKENS
    assert one_answer(await pair.ask()).usage is None


async def test_a_tool_call_is_made_once_more_and_only_what_is_new_of_it_is_told(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    pair = await pair_of(serve, boxes)
    seen, asked = await pair.resume(lambda: pair.ask(tools=[TOOL]))
    assert json.loads(seen.choices[0].calls[0]) == {"answered_by": ADAPTER, "numbers": list(range(TOKENS - 2))}
    assert seen.choices[0].finishes == ["tool_calls"]
    assert [message["role"] for message in asked["messages"]] == ["user"]
    assert "continue_final_message" not in asked


async def test_the_sdk_reads_one_answer(serve: ServePlane, boxes: list[Simulator]) -> None:
    pair = await pair_of(serve, boxes)
    async with pair.plane.sdk().chat.completions.stream(
        model=ADAPTER, messages=[{"role": "user", "content": "hello"}]
    ) as stream:
        answer = await stream.get_final_completion()
    assert (answer.choices[0].message.role, answer.choices[0].message.content) == ("assistant", WHOLE)


async def test_two_different_tool_calls_are_never_put_together(serve: ServePlane, scripted: StartScripted) -> None:
    def call(arguments: str, **first: Any) -> bytes:
        function = {"arguments": arguments, **({"name": "lookup"} if first else {})}
        return event({"index": 0, "delta": {"tool_calls": [{"index": 0, "function": function, **first}]}})

    head = event({"index": 0, "delta": {"role": "assistant", "content": ""}})
    begun = chunked(head, call("", id="call_1", type="function"), call('{"order": "A'))
    other = chunked(head, call("", id="call_2", type="function"), call('{"order": "B1"}'))
    plane = await serve(
        [await scripted(STREAM_HEAD, begun, END), await scripted(STREAM_HEAD, other, END)], on_broken_stream="resume"
    )
    for _ in range(2):
        seen = check_stream(await plane.raw().chat(ADAPTER, tools=[TOOL]))
        assert seen.violations == []
        assert seen.error is not None
        assert seen.choices[0].calls[0] in {'{"order": "A', '{"order": "B1"}'}


@pytest.mark.parametrize("fields", [{"n": 2}])
async def test_what_cannot_be_gone_on_with_ends_with_an_error(
    serve: ServePlane, boxes: list[Simulator], fields: dict[str, Any]
) -> None:
    pair = await pair_of(serve, boxes)
    seen = check_stream(await pair.ask(**fields), choices=2)
    assert seen.violations == []
    assert seen.error is not None
    assert pair.other.admin.requests() == []
    assert pair.plane.metrics.stream_resumes.value("acme", "failed") == 1


async def test_with_every_box_broken_a_stream_ends_with_an_error_and_nothing_is_invented(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    pair = await pair_of(serve, boxes)
    pair.other.admin.fault("truncate", after_chunks=3)
    seen = check_stream(await pair.ask())
    assert seen.violations == []
    assert seen.error is not None
    assert seen.error["code"] == "stream_broken"
    assert WHOLE.startswith(seen.choices[0].text)
    await eventually(lambda: pair.plane.idle)


async def test_an_answer_goes_on_twice_and_is_then_given_up(serve: ServePlane, three: list[Simulator]) -> None:
    plane = await serve(three, on_broken_stream="resume", stall_timeout_s=0.3)
    for box in three:
        box.admin.fault("truncate", after_chunks=3, count=1)
    seen = check_stream(await plane.raw().chat(ADAPTER))
    assert seen.violations == []
    assert seen.error is not None
    assert WHOLE.startswith(seen.choices[0].text)
    assert len(seen.choices[0].text) > len(f"{ADAPTER}: 0 1 2"), "each box has said some of it"
    resumes = plane.metrics.stream_resumes
    assert (resumes.value("acme", "resumed"), resumes.value("acme", "failed")) == (2, 1)
    assert one_answer(await plane.raw().chat(ADAPTER)).choices[0].text == WHOLE


async def test_a_provider_s_stream_is_not_gone_on_with(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator
) -> None:
    plane = await serve(["http://127.0.0.1:9"], provider_step(hosted.url), on_broken_stream="resume")
    hosted.admin.fault("truncate", after_chunks=3)
    seen = check_stream(await plane.raw().chat(ADAPTER))
    assert seen.violations == []
    assert seen.error is not None
    assert boxes[0].admin.requests() == []


async def test_a_client_that_leaves_while_the_rest_is_awaited_leaves_nothing_behind(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    pair = await pair_of(serve, boxes)
    pair.other.admin.fault("hang_before_headers")
    await pair.ask(leave_after=b": the upstream was lost")
    await eventually(lambda: pair.plane.idle)


async def test_openai_s_error_is_raised_where_it_cannot_go_on(serve: ServePlane, boxes: list[Simulator]) -> None:
    pair = await pair_of(serve, boxes)
    pair.other.admin.fault("refuse")
    stream = await pair.plane.sdk().chat.completions.create(
        model=ADAPTER, messages=[{"role": "user", "content": "hello"}], stream=True
    )
    with pytest.raises(openai.APIError, match="broke off"):
        async for _ in stream:
            pass


async def asked_for(pair: Pair, **fields: Any) -> list[Any]:
    """The seeds with which each box was asked for one stream that went on."""
    pair.first.admin.forget()
    _, again = await pair.resume(lambda: pair.ask(tools=[TOOL], **fields))
    bodies = [entry["body"] for entry in pair.first.admin.requests() if entry["path"] != "/tokenize"]
    return [bodies[-1].get("seed"), again.get("seed")]


@pytest.mark.parametrize("fields", [{}, {"seed": None}, {"stream_options": {"include_usage": True}}])
async def test_a_sampled_stream_is_made_again_with_the_seed_that_it_got(
    serve: ServePlane, boxes: list[Simulator], fields: dict[str, Any]
) -> None:
    pair = await pair_of(serve, boxes, policy={"seed_streams": True})
    first, second = await asked_for(pair, **fields)
    assert isinstance(first, int)
    assert first == second
    assert (await asked_for(pair, **fields))[0] != first, "each stream has its own"


@pytest.mark.parametrize(
    ("policy", "fields", "seed"),
    [
        ({}, {}, None),
        ({"seed_streams": True}, {"seed": 7}, 7),
        ({"seed_streams": True}, {"temperature": 0}, None),
    ],
)
async def test_no_seed_is_given_that_was_not_wanted_or_not_needed(
    serve: ServePlane, boxes: list[Simulator], policy: dict[str, Any], fields: dict[str, Any], seed: int | None
) -> None:
    pair = await pair_of(serve, boxes, policy=policy)
    assert await asked_for(pair, **fields) == [seed, seed]
