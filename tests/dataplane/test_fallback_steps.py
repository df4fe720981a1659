"""What answers when the own adapter cannot, and how each such answer is marked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.simulator.numbering import numbered_text
from gateway.policy.compiled import BaseStep, StaticStep
from tests.dataplane.conftest import TOKENS, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, GENERIC_MODEL, PROVIDER_KEY, Plane, provider_step
from tests.dataplane.scripted_box import END, STREAM_HEAD, chunked
from tests.support.checker import Seen, check_plain, check_stream
from tests.support.processes import Simulator
from tests.support.raw_client import Recording
from tests.support.streams import DONE, chat_events, choice, event

LATER = "We are in reduced mode."
GENERIC = numbered_text("generic", TOKENS, None).text
CHAT: dict[str, Any] = {"model": ADAPTER, "messages": [{"role": "user", "content": "hello"}]}
COMPLETION: dict[str, Any] = {"model": ADAPTER, "prompt": "hello"}
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
NO_BOX = "http://127.0.0.1:1"
"""Nobody listens there."""


@pytest.fixture
def without_adapter(boxes: list[Simulator]) -> list[Simulator]:
    """Both boxes, which have lost the adapter and are well otherwise."""
    for box in boxes:
        box.admin.fault("adapter_missing", adapter=ADAPTER)
    return boxes


async def ask(plane: Plane, endpoint: str, *, stream: bool, **fields: Any) -> Recording:
    body = (CHAT if endpoint == "chat" else COMPLETION) | {"stream": stream} | fields
    return await plane.raw().ask(PATHS[endpoint], body)


def judged(answer: Recording, *, text: str | None = None) -> Seen:
    streamed = "event-stream" in answer.headers.get("content-type", "")
    seen = (check_stream if streamed else check_plain)(answer, text=text)
    assert seen.violations == []
    return seen


def assert_marked(answer: Recording, seen: Seen, *, served_by: str, model: str, reason: str, attempts: int) -> None:
    """Every mark of a degraded answer, in its headers and in its body, and nothing else of ours."""
    ours = {k: v for k, v in answer.headers.items() if k.startswith("x-failsoft-")}
    assert ours == {
        "x-failsoft-served-by": served_by,
        "x-failsoft-attempts": str(attempts),
        "x-failsoft-policy": "7",
        "x-failsoft-degraded": reason,
        "x-failsoft-model": model,
    }
    assert answer.headers["x-request-id"]
    mark = {"reason": reason, "requested_model": ADAPTER, "served_model": model, "served_by": served_by}
    assert seen.events[0]["degraded"] == mark
    assert all("degraded" not in later for later in seen.events[1:])
    assert seen.model == model


async def settled(plane: Plane) -> None:
    """One failed request, so that the next one finds the boxes' breakers as they then are."""
    await ask(plane, "chat", stream=False)


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_base_answers_in_its_own_name(
    serve: ServePlane, without_adapter: list[Simulator], endpoint: str, stream: bool
) -> None:
    plane = await serve(without_adapter, BaseStep())
    answer = await ask(plane, endpoint, stream=stream, top_k=5)
    seen = judged(answer)
    served_by = answer.headers["x-failsoft-served-by"]
    assert served_by in ("base:a", "base:b")
    assert_marked(answer, seen, served_by=served_by, model="base", reason="adapter_unavailable", attempts=3)
    assert seen.answered_by == "base"
    (asked,) = [r for box in without_adapter for r in box.admin.requests(model="base")]
    assert asked["body"]["top_k"] == 5


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_static_answer_is_one_text_one_stop_and_usage_of_zeros(
    serve: ServePlane, endpoint: str, stream: bool, include_usage: bool
) -> None:
    plane = await serve([NO_BOX], StaticStep(LATER))
    options = {"stream_options": {"include_usage": include_usage}} if stream else {}
    answer = await ask(plane, endpoint, stream=stream, **options)
    seen = judged(answer, text=LATER)
    assert_marked(answer, seen, served_by="static", model="static", reason="backend_down", attempts=2)
    assert seen.choices[0].finishes == ["stop"]
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert seen.usage == (zeros if include_usage or not stream else None)
    if stream:
        assert len(seen.events) == 2 + include_usage
        assert answer.body.endswith(DONE)


@pytest.mark.parametrize(
    ("asks_for", "given"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, False),
        ({"response_format": {"type": "json_object"}}, False),
        ({"response_format": {"type": "structural_tag", "structures": []}}, False),
        ({"functions": [{"name": "lookup"}]}, False),
        ({"structured_outputs": {"regex": "[a-z]+"}}, False),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}, False),
        ({"response_format": {"type": "text"}}, True),
        ({"tools": []}, True),
        ({"tools": None, "response_format": None}, True),
    ],
)
async def test_static_text_is_not_given_to_who_expects_a_tool_call_or_json(
    serve: ServePlane, asks_for: dict[str, Any], given: bool
) -> None:
    plane = await serve([NO_BOX], StaticStep(LATER))
    answer = await ask(plane, "chat", stream=False, **asks_for)
    assert answer.status == (200 if given else 503)
    even = await serve([NO_BOX], StaticStep(LATER, even_for_tools=True))
    judged(await ask(even, "chat", stream=False, **asks_for), text=LATER)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_answers_as_the_policy_says(serve: ServePlane, hosted: Simulator, stream: bool) -> None:
    step = provider_step(
        hosted.url, asked="openai/other-mini", system_prompt="Be brief.", drop=frozenset({"logprobs", "seed"})
    )
    plane = await serve([NO_BOX], step)
    answer = await ask(
        plane, "chat", stream=stream, seed=1, logprobs=True, temperature=0.5, top_k=5, min_p=0.1, guided_json={}
    )
    seen = judged(answer)
    assert_marked(answer, seen, served_by="provider:hosted", model="other-mini", reason="backend_down", attempts=2)
    (asked,) = hosted.admin.requests()
    system = {"role": "system", "content": "Be brief."}
    assert asked["body"] == {
        "model": "other-mini",
        "messages": [system, *CHAT["messages"]],
        "temperature": 0.5,
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    }
    assert asked["headers"]["authorization"] == f"Bearer {PROVIDER_KEY}"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_at_a_chat_only_provider_is_answered_as_a_completion(
    serve: ServePlane, hosted: Simulator, stream: bool
) -> None:
    plane = await serve([NO_BOX], provider_step(hosted.url))
    answer = await ask(plane, "completions", stream=stream, max_tokens=100)
    seen = judged(answer)
    assert_marked(answer, seen, served_by="provider:hosted", model=GENERIC_MODEL, reason="backend_down", attempts=2)
    assert (seen.text, seen.events[0]["object"]) == (GENERIC, "text_completion")
    (asked,) = hosted.admin.requests()
    assert asked["body"]["messages"] == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("endpoint", "fields", "why"),
    [
        ("completions", {"prompt": ["one", "two"]}, "not one string"),
        ("chat", {"structured_outputs": {"regex": "[ab]"}}, "structured_outputs.regex"),
    ],
)
async def test_a_provider_that_cannot_serve_the_request_is_skipped_and_the_503_says_why(
    serve: ServePlane, hosted: Simulator, endpoint: str, fields: dict[str, Any], why: str
) -> None:
    plane = await serve([NO_BOX], provider_step(hosted.url))
    answer = await ask(plane, endpoint, stream=False, **fields)
    assert answer.status == 503
    assert why in answer.json()["error"]["message"]
    assert hosted.admin.requests() == []


async def test_the_first_event_that_leaves_is_marked_also_when_it_brings_only_the_role(
    serve: ServePlane, scripted: StartScripted
) -> None:
    role, *rest = chat_events(3, name="generic")
    box = await scripted(STREAM_HEAD, chunked(b": a comment {\n\n"), chunked(role), 0.02, chunked(*rest), END)
    plane = await serve([NO_BOX], provider_step(box.url))
    answer = await ask(plane, "chat", stream=True)
    first = json.loads(answer.body.split(b"\n\n")[0].removeprefix(b"data: "))
    assert first["degraded"]["served_by"] == "provider:hosted"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    judged(answer)


async def test_never_asks_for_the_own_adapter_or_an_error(serve: ServePlane, hosted: Simulator) -> None:
    plane = await serve([NO_BOX], provider_step(hosted.url), StaticStep(LATER))
    for word in ("never", "Never", " NEVER "):
        answer = await plane.raw().chat(ADAPTER, stream=False, headers={"x-failsoft-fallback": word})
        assert answer.status == 503
        assert "x-failsoft-degraded" not in answer.headers
    assert hosted.admin.requests() == []
    assert (await plane.raw().chat(ADAPTER, stream=False)).status == 200


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"fault": "reset_before_headers"}, "backend_down"),
        ({"fault": "status", "status": 500}, "backend_down"),
        ({"fault": "html_200"}, "backend_down"),
        ({"fault": "status", "status": 429}, "backend_saturated"),
        ({"fault": "status", "status": 503}, "backend_saturated"),
        ({"fault": "adapter_missing"}, "adapter_unavailable"),
        ({"fault": "hang_before_headers"}, "ttft_budget"),
        ({"fault": "role_only_then_silence"}, "ttft_budget"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_reason_is_that_of_the_own_adapters_first_failure(
    serve: ServePlane, boxes: list[Simulator], fault: dict[str, Any], reason: str, stream: bool
) -> None:
    for box in boxes:
        box.admin.faults(fault)
    plane = await serve(boxes, StaticStep(LATER), ttft_budget_s=0.2, plain_budget_s=0.4)
    answer = await ask(plane, "chat", stream=stream)
    seen = judged(answer, text=LATER)
    assert_marked(answer, seen, served_by="static", model="static", reason=reason, attempts=3)


async def test_while_the_breaker_is_open_the_reason_is_circuit_open(serve: ServePlane) -> None:
    plane = await serve([NO_BOX], StaticStep(LATER))
    await settled(plane)
    answer = await ask(plane, "chat", stream=False)
    assert_marked(
        answer, judged(answer, text=LATER), served_by="static", model="static", reason="circuit_open", attempts=1
    )


async def test_a_provider_that_names_no_model_is_named_by_what_was_asked_of_it(
    serve: ServePlane, scripted: StartScripted
) -> None:
    events = [event(choice(content="generic: 0 end/1"), model=None), event(choice(finish="stop"), model="late"), DONE]
    box = await scripted(STREAM_HEAD, chunked(*events), END)
    plane = await serve([NO_BOX], provider_step(box.url))
    answer = await ask(plane, "chat", stream=True)
    assert_marked(
        answer,
        judged(answer, text="generic: 0 end/1"),
        served_by="provider:hosted",
        model=GENERIC_MODEL,
        reason="backend_down",
        attempts=2,
    )


async def test_a_step_still_answers_after_the_deadline_if_it_costs_no_time(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    for box in boxes:
        box.admin.fault("hang_before_headers")
    plane = await serve(boxes, StaticStep(LATER), deadline_s=0.3, ttft_budget_s=5.0)
    judged(await ask(plane, "chat", stream=True), text=LATER)


async def test_the_sdk_reads_the_mark_of_a_degraded_answer(serve: ServePlane, hosted: Simulator) -> None:
    plane = await serve([NO_BOX], provider_step(hosted.url))
    answer = await plane.sdk().chat.completions.create(**CHAT)
    assert (answer.model, answer.choices[0].message.content) == (GENERIC_MODEL, GENERIC)
    assert (answer.model_extra or {})["degraded"]["reason"] == "backend_down"
    stream = await plane.sdk().chat.completions.create(**CHAT, stream=True)
    first = await anext(aiter(stream))
    assert (first.model_extra or {})["degraded"]["served_by"] == "provider:hosted"
    await stream.close()
