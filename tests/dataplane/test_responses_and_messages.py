"""`/v1/responses` and `/v1/messages` from the outside: healthy, with boxes that fail, degraded, refused, broken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.dataplane.messages_guard import MessagesGuard
from gateway.dataplane.responses_guard import ResponsesGuard
from gateway.policy.alias import Alias
from gateway.policy.compiled import BaseStep, CompiledPolicy, StaticStep
from tests.dataplane.conftest import TOKENS, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, GENERIC_MODEL, KEY, OTHERS_ADAPTER, Plane, compiled, provider_step
from tests.dataplane.scripted_box import whole
from tests.support.event_checker import MESSAGES, RESPONSES, Heard, check
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording

NO_BOX = "http://127.0.0.1:1"
OWN = f"{ADAPTER}: " + " ".join(map(str, range(TOKENS - 2))) + f" end/{TOKENS - 2}"
GENERIC = OWN.replace(ADAPTER, GENERIC_MODEL.partition("-")[0])
PARAMETERS = {"type": "object", "properties": {}}
TOOLS: dict[str, dict[str, Any]] = {
    RESPONSES: {"tools": [{"type": "function", "name": "look_up", "parameters": PARAMETERS}]},
    MESSAGES: {"tools": [{"name": "look_up", "input_schema": PARAMETERS}]},
}
FINISHED = {RESPONSES: "completed", MESSAGES: "end_turn"}
CALLED = {RESPONSES: "completed", MESSAGES: "tool_use"}
CUT = {RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}
MODE = pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
PATH = pytest.mark.parametrize("path", [RESPONSES, MESSAGES], ids=["responses", "messages"])

IN_THE_MIDDLE = 8
"""Events of either API after which content has gone out and more is to come."""


def question(path: str, **fields: Any) -> dict[str, Any]:
    if path == RESPONSES:
        return {"model": ADAPTER, "input": "hello", **fields}
    return {"model": ADAPTER, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1000, **fields}


async def ask(plane: Plane, path: str, **fields: Any) -> Recording:
    options = {name: fields.pop(name) for name in ("headers", "leave_after") if name in fields}
    return await plane.raw().ask(path, question(path, **fields), **options)


def heard(path: str, answer: Recording) -> Heard:
    found = check(path, answer)
    assert found.violations == []
    return found


def error_of(path: str, answer: Recording) -> dict[str, Any]:
    """The error of an answer that is one, in its API's envelope."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    error: dict[str, Any] = body["error"]
    if path == MESSAGES:
        assert body.keys() == {"type", "error"}
        assert body["type"] == "error"
        assert error.keys() == {"type", "message"}
    else:
        assert error.keys() == {"message", "type", "param", "code"}
    return error


@pytest.fixture(scope="module")
def paced(session_processes: Processes) -> list[Simulator]:
    """Two boxes that speak token by token: what breaks comes behind what was said, and not in one piece with it."""
    started = [
        session_processes.box(name=name, adapters=[ADAPTER, OTHERS_ADAPTER], tokens=TOKENS, itl_ms=20)
        for name in ("c", "d")
    ]
    for box in started:
        box.wait_ready()
    return started


@pytest.fixture
def slow(paced: list[Simulator]) -> Iterator[list[Simulator]]:
    """The same, without faults."""
    yield paced
    for box in paced:
        box.admin.heal()


def with_acme(policy: CompiledPolicy, **changes: Any) -> CompiledPolicy:
    """``policy`` with another ``acme``."""
    acme = replace(policy.customers["acme"], **changes)
    keys = {
        digest: replace(key, customer=acme) if key.customer.name == "acme" else key
        for digest, key in policy.keys.items()
    }
    return replace(policy, customers={**policy.customers, "acme": acme}, keys=keys)


# Healthy.


@PATH
@MODE
async def test_a_healthy_box_answers_unmarked_in_its_own_bytes(
    serve: ServePlane, boxes: list[Simulator], path: str, stream: bool
) -> None:
    plane = await serve(boxes)
    answer = await ask(plane, path, stream=stream, **{"headers": {"x-request-id": "mine-1"}})
    found = heard(path, answer)
    assert (found.text, found.model, found.reason, found.degraded) == (OWN, ADAPTER, FINISHED[path], None)
    assert answer.headers["x-failsoft-served-by"].startswith("box:")
    assert answer.headers["x-request-id"] == "mine-1"
    assert "x-failsoft-degraded" not in answer.headers
    assert b"degraded" not in answer.body
    sent = [box.admin.requests(path=path) for box in boxes]
    assert [entry["body"] for entry in (*sent[0], *sent[1])] == [question(path, stream=stream)]


@PATH
@MODE
async def test_a_tool_is_called(serve: ServePlane, boxes: list[Simulator], path: str, stream: bool) -> None:
    found = heard(path, await ask(await serve(boxes), path, stream=stream, **TOOLS[path]))
    ((name, arguments),) = found.calls
    assert (name, arguments["answered_by"], found.reason) == ("look_up", ADAPTER, CALLED[path])


@PATH
@MODE
async def test_an_answer_that_its_limit_cuts_is_whole(
    serve: ServePlane, boxes: list[Simulator], path: str, stream: bool
) -> None:
    limit = {"max_output_tokens": 3} if path == RESPONSES else {"max_tokens": 3}
    found = heard(path, await ask(await serve(boxes), path, stream=stream, **limit))
    assert (found.text, found.reason) == (f"{ADAPTER}: 0 1", CUT[path])


@PATH
@MODE
async def test_what_was_used_is_counted(serve: ServePlane, boxes: list[Simulator], path: str, stream: bool) -> None:
    plane = await serve(boxes)
    found = heard(path, await ask(plane, path, stream=stream))
    assert found.usage is not None
    assert found.usage[0] > 0
    cell = plane.dataplane._books._accounts.usage.cell("acme", "own", "none")
    assert (cell[0], cell[1], cell[2], cell[5]) == (1, *found.usage, 0)
    assert found.usage[1] == TOKENS


@PATH
async def test_an_alias_reaches_boxes_as_its_adapter(serve: ServePlane, boxes: list[Simulator], path: str) -> None:
    aliases = {"acme": Alias.of("acme", "acme", ADAPTER)}
    plane = await serve(policy=with_acme(compiled([box.url for box in boxes]), aliases=aliases))
    assert heard(path, await ask(plane, path, model="acme")).model == ADAPTER


# Failing.


@PATH
@MODE
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "reset_before_headers"},
        {"fault": "status", "status": 500},
        {"fault": "adapter_missing"},
        {"fault": "error_frame_first"},
        {"fault": "html_200"},
        {"fault": "empty_200"},
        {"fault": "truncate", "after_chunks": 2},
    ],
    ids=lambda fault: str(fault["fault"]),
)
async def test_what_fails_before_the_commit_is_made_good_by_the_other_box(
    serve: ServePlane, boxes: list[Simulator], path: str, stream: bool, fault: dict[str, Any]
) -> None:
    plane = await serve(boxes)
    boxes[0].admin.faults(fault)
    for _ in range(2):  # so that the faulty one is asked first once
        answer = await ask(plane, path, stream=stream)
        assert (heard(path, answer).text, answer.headers["x-failsoft-served-by"]) == (OWN, "box:b")


@PATH
async def test_a_box_that_only_begins_is_no_better_than_a_silent_one(
    serve: ServePlane, boxes: list[Simulator], path: str
) -> None:
    plane = await serve(boxes, ttft_budget_s=0.2)
    boxes[0].admin.fault("role_only_then_silence")
    for _ in range(2):
        answer = await ask(plane, path, stream=True)
        assert (heard(path, answer).text, answer.headers["x-failsoft-served-by"]) == (OWN, "box:b")


@PATH
@MODE
async def test_where_no_box_answers_the_provider_does_and_the_first_event_says_so(
    serve: ServePlane, hosted: Simulator, path: str, stream: bool
) -> None:
    plane = await serve([NO_BOX], provider_step(hosted.url, system_prompt="As Acme."))
    answer = await ask(plane, path, stream=stream)
    found = heard(path, answer)
    assert (found.text, found.model, found.reason) == (GENERIC, GENERIC_MODEL, FINISHED[path])
    assert found.degraded == {
        "reason": "backend_down",
        "requested_model": ADAPTER,
        "served_model": GENERIC_MODEL,
        "served_by": "provider:hosted",
    }
    assert answer.headers["x-failsoft-degraded"] == "backend_down"
    assert answer.headers["x-failsoft-served-by"] == "provider:hosted"
    (sent,) = hosted.admin.requests(path="/v1/chat/completions")
    said = sent["body"]["messages"]
    assert [message["role"] for message in said] == ["system", "user"]
    assert said[0]["content"] == "As Acme."
    cell = plane.dataplane._books._accounts.usage.cell("acme", "provider:hosted", "backend_down")
    assert (cell[0], cell[1], cell[2]) == (1, *(found.usage or ()))


@PATH
@MODE
async def test_the_provider_calls_the_tool_too(serve: ServePlane, hosted: Simulator, path: str, stream: bool) -> None:
    plane = await serve([NO_BOX], provider_step(hosted.url))
    found = heard(path, await ask(plane, path, stream=stream, **TOOLS[path]))
    ((name, arguments),) = found.calls
    assert (name, arguments["answered_by"], found.reason) == ("look_up", "generic", CALLED[path])
    assert found.degraded is not None


@PATH
@MODE
async def test_the_base_answers_marked(serve: ServePlane, boxes: list[Simulator], path: str, stream: bool) -> None:
    plane = await serve(boxes, BaseStep())
    for box in boxes:
        box.admin.fault("adapter_missing", adapter=ADAPTER)
    answer = await ask(plane, path, stream=stream)
    found = heard(path, answer)
    assert (found.model, found.degraded and found.degraded["reason"]) == ("base", "adapter_unavailable")
    assert answer.headers["x-failsoft-served-by"].startswith("base:")


@PATH
@MODE
async def test_the_fixed_text_is_given_in_the_apis_own_shape(serve: ServePlane, path: str, stream: bool) -> None:
    plane = await serve([NO_BOX], StaticStep("Please retry in a minute."))
    found = heard(path, await ask(plane, path, stream=stream))
    assert (found.text, found.model, found.reason) == ("Please retry in a minute.", "static", FINISHED[path])
    assert found.degraded == {
        "reason": "backend_down",
        "requested_model": ADAPTER,
        "served_model": "static",
        "served_by": "static",
    }
    assert found.usage == (0, 0)


@PATH
@pytest.mark.parametrize("structured", ["tools", "format"])
async def test_the_fixed_text_is_no_answer_to_who_expects_structure(
    serve: ServePlane, path: str, structured: str
) -> None:
    plane = await serve([NO_BOX], StaticStep("later"))
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    format_ = {"text": {"format": schema}} if path == RESPONSES else {"output_config": {"format": schema}}
    answer = await ask(plane, path, **(TOOLS[path] if structured == "tools" else format_))
    assert answer.status == 503


@PATH
@MODE
async def test_where_providers_are_forbidden_there_is_one_503(
    serve: ServePlane, hosted: Simulator, path: str, stream: bool
) -> None:
    plane = await serve(policy=with_acme(compiled([NO_BOX]), hosted_allowed=False))
    answer = await ask(plane, path, stream=stream)
    assert answer.status == 503
    error = error_of(path, answer)
    assert "box:a" in error["message"]
    assert error["type"] == ("overloaded_error" if path == MESSAGES else "service_unavailable")
    assert int(answer.headers["retry-after"]) <= 30
    assert answer.headers["x-should-retry"] == "false"
    assert hosted.admin.requests() == []


@PATH
async def test_who_wants_the_own_adapter_or_an_error_gets_the_error(
    serve: ServePlane, hosted: Simulator, path: str
) -> None:
    plane = await serve([NO_BOX], provider_step(hosted.url))
    assert (await ask(plane, path, headers={"x-failsoft-fallback": "never"})).status == 503


# Broken.


@PATH
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "reset_mid_stream"},
        {"fault": "truncate"},
        {"fault": "error_frame_mid"},
        {"fault": "malformed_frame"},
        {"fault": "invalid_utf8"},
        {"fault": "stall", "seconds": None},
    ],
    ids=lambda fault: str(fault["fault"]),
)
@pytest.mark.parametrize("policy", ["resume", "error"])
async def test_a_stream_that_breaks_ends_with_one_error_event(
    serve: ServePlane, slow: list[Simulator], path: str, fault: dict[str, Any], policy: str
) -> None:
    plane = await serve(slow, on_broken_stream=policy, stall_timeout_s=0.3)
    for box in slow:
        box.admin.faults({**fault, "after_chunks": IN_THE_MIDDLE})
    found = heard(path, await ask(plane, path, stream=True))
    assert found.error is not None
    assert found.error["code"] == "stream_broken"
    assert OWN.startswith(found.text)
    assert len(found.text) > len(ADAPTER)
    if path == RESPONSES:
        assert found.events[-1]["code"] == "stream_broken"
        assert found.events[-1]["message"] == found.error["message"]


async def test_an_abort_of_a_message_is_no_end(serve: ServePlane, slow: list[Simulator]) -> None:
    plane = await serve(slow)
    for box in slow:
        box.admin.faults({"fault": "abort", "after_chunks": IN_THE_MIDDLE})
    found = heard(MESSAGES, await ask(plane, MESSAGES, stream=True))
    assert found.error is not None
    assert (await ask(plane, MESSAGES, stream=False)).status == 503


@PATH
async def test_a_providers_stream_that_breaks_ends_with_one_error_event(
    serve: ServePlane, hosted: Simulator, path: str
) -> None:
    hosted.admin.faults({"fault": "stall", "after_chunks": 5, "seconds": None})
    plane = await serve([NO_BOX], provider_step(hosted.url), stall_timeout_s=0.3)
    found = heard(path, await ask(plane, path, stream=True))
    assert found.error is not None
    assert found.error["code"] == "stream_broken"
    assert GENERIC.startswith(found.text)
    assert found.degraded is not None


@PATH
async def test_who_leaves_frees_the_box(serve: ServePlane, boxes: list[Simulator], path: str) -> None:
    plane = await serve(boxes)
    for box in boxes:
        box.admin.faults({"fault": "stall", "after_chunks": IN_THE_MIDDLE, "seconds": None})
    answer = await ask(plane, path, stream=True, leave_after=f"{ADAPTER}:".encode())
    assert answer.end == "left"
    async with asyncio.timeout(5):
        while not plane.idle:  # noqa: ASYNC110  # its state is in plain attributes
            await asyncio.sleep(0.01)


# Refused.


@PATH
async def test_a_model_of_anothers_is_no_ones(serve: ServePlane, boxes: list[Simulator], path: str) -> None:
    plane = await serve(boxes)
    answers = [await ask(plane, path, model=model) for model in (OTHERS_ADAPTER, "nobodys")]
    for answer in answers:
        assert answer.status == 404
        assert "does not exist" in error_of(path, answer)["message"]
    assert answers[0].body.replace(OTHERS_ADAPTER.encode(), b"nobodys") == answers[1].body


@PATH
@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, {"x-api-key": KEY, "authorization": "Basic eA=="}])
async def test_the_key_may_come_as_anthropics_sdk_sends_it(
    serve: ServePlane, boxes: list[Simulator], path: str, headers: dict[str, str]
) -> None:
    plane = await serve(boxes)
    client = RawClient(plane.url)
    assert heard(path, await client.ask(path, question(path), headers=headers)).whole
    assert (await client.ask("/v1/models", headers=headers)).status == 200


@PATH
@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": "wrong"}, {"x-api-key": ""}, {"authorization": "Bearer wrong", "x-api-key": KEY}]
)
async def test_a_wrong_key_is_a_401(serve: ServePlane, path: str, headers: dict[str, str]) -> None:
    plane = await serve([NO_BOX])
    answer = await RawClient(plane.url).ask(path, question(path), headers=headers)
    assert answer.status == 401
    error = error_of(path, answer)
    if path == MESSAGES:
        assert error["type"] == "authentication_error"


@PATH
async def test_a_boxs_verdict_on_the_request_goes_back_in_the_apis_envelope(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator, path: str
) -> None:
    plane = await serve(boxes, provider_step(hosted.url))
    wrong = {"input": 5} if path == RESPONSES else {"messages": 5}
    for fields in (wrong, {"temperature": -1}):
        answer = await ask(plane, path, **fields)
        assert answer.status == 400
        error_of(path, answer)
    assert hosted.admin.requests() == []


@pytest.mark.parametrize(
    ("field", "value"), [("previous_response_id", "resp_1"), ("conversation", {"id": "conv_1"}), ("background", True)]
)
async def test_what_needs_a_server_that_keeps_responses_is_refused(
    serve: ServePlane, boxes: list[Simulator], field: str, value: Any
) -> None:
    answer = await ask(await serve(boxes), RESPONSES, **{field: value})
    assert answer.status == 400
    assert error_of(RESPONSES, answer)["param"] == field


async def test_a_box_that_lacks_the_endpoint_says_so_and_lacks_no_adapter(
    serve: ServePlane, scripted: StartScripted
) -> None:
    box = await scripted(*[whole(b'{"detail":"Not Found"}', status=404)] * 2)
    plane = await serve([box])
    for path in (RESPONSES, MESSAGES):
        answer = await ask(plane, path)
        assert answer.status == 404
        assert "do not serve" in error_of(path, answer)["message"]
    (seen,) = plane.fleets.all()
    assert seen.condition(ADAPTER, seen.pool.in_use) is None


@PATH
async def test_a_limit_that_is_reached_is_told_in_the_apis_envelope(
    serve: ServePlane, boxes: list[Simulator], path: str
) -> None:
    plane = await serve(policy=with_acme(compiled([box.url for box in boxes]), requests_per_minute=1))
    assert heard(path, await ask(plane, path)).whole
    answer = await ask(plane, path)
    assert answer.status == 429
    if path == MESSAGES:
        assert error_of(path, answer)["type"] == "rate_limit_error"
    assert int(answer.headers["retry-after"]) >= 1


@PATH
async def test_a_request_that_chat_has_no_word_for_skips_the_provider(
    serve: ServePlane, hosted: Simulator, path: str
) -> None:
    plane = await serve([NO_BOX], provider_step(hosted.url), StaticStep("later", even_for_tools=True))
    tool = {"type": "web_search_20250305", "name": "web_search"}
    answer = await ask(plane, path, tools=[tool])
    assert answer.headers["x-failsoft-served-by"] == "static"
    assert hosted.admin.requests() == []


@PATH
async def test_bytes_of_any_cut_make_the_same_answer(serve: ServePlane, boxes: list[Simulator], path: str) -> None:
    """What arrives byte by byte leaves whole."""
    answer = await ask(await serve(boxes), path, stream=True)
    guard = ResponsesGuard() if path == RESPONSES else MessagesGuard()
    out = b"".join(guard.feed(answer.body[i : i + 1]) for i in range(len(answer.body)))
    assert (out, guard.complete, guard.error) == (answer.body, True, None)


async def test_what_is_not_served_beside_messages_is_refused_in_anthropics_words(serve: ServePlane) -> None:
    plane = await serve()
    answer = await plane.raw().ask("/v1/messages/count_tokens", {"model": ADAPTER, "messages": []})
    assert answer.status == 404
    assert answer.json() == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "POST /v1/messages/count_tokens is not served here."},
    }
    other = await plane.raw().ask("/v1/nothing", {})
    assert (other.status, other.json()["error"]["code"]) == (404, "not_found")
