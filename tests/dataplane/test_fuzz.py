"""Whatever a client sends, there is an answer or an error in the envelope: never a 500, never a defect's alarm."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.policy.compiled import BaseStep, StaticStep, Step
from tests.dataplane.plane import ADAPTER, KEY, Plane, compiled, provider_step
from tests.dataplane.scripted_box import END, STREAM_HEAD, ScriptedBox, chunked, whole
from tests.support.eventually import eventually

NO_BOX = "http://127.0.0.1:1"
STEPS: tuple[Step, ...] = (
    BaseStep(),
    provider_step(NO_BOX, system_prompt="Be brief.", drop=frozenset({"seed"})),
    StaticStep("reduced"),
)

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "tool"]) | anything,
            "content": st.text(max_size=20) | st.lists(st.fixed_dictionaries({"type": anything, "text": anything})),
            "tool_calls": st.lists(anything, max_size=2) | anything,
            "reasoning_content": anything,
        },
    )
    | anything,
    max_size=3,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "messages": messages | anything,
    "prompt": st.text(max_size=20) | st.lists(st.text(max_size=5) | st.integers()) | anything,
    "stream": st.booleans() | st.none() | anything,
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}) | anything,
    "n": st.integers(-2, 5) | st.none() | anything,
    "tools": st.lists(anything, max_size=2) | anything,
    "tool_choice": anything,
    "response_format": st.fixed_dictionaries({"type": st.sampled_from(["text", "json_object", "x"])}) | anything,
    "structured_outputs": st.fixed_dictionaries(
        {}, optional={"regex": anything, "json": st.text(max_size=10) | anything, "json_object": anything}
    )
    | anything,
    "continue_final_message": anything,
    "seed": st.integers(),
    "stop": anything,
    "suffix": anything,
    "documents": anything,
    "logit_bias": anything,
}
requests = st.fixed_dictionaries(
    {"model": st.sampled_from([ADAPTER] * 8 + ["globex_v1", ""]) | anything}, optional=FIELDS
) | st.dictionaries(st.text(max_size=8), anything)


def cut(body: bytes, damage: tuple[int, bytes] | None) -> bytes:
    """``body`` with a few of its bytes replaced."""
    if damage is None or not body:
        return body
    at = damage[0] % len(body)
    return body[:at] + damage[1] + body[at + len(damage[1]) :]


async def call(plane: Plane, path: str, body: bytes, pieces: int) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request over ASGI, its body in so many pieces."""
    size = max(1, -(-len(body) // pieces))
    parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    messages = iter({"type": "http.request", "body": p, "more_body": i < len(parts) - 1} for i, p in enumerate(parts))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer " + KEY.encode()), (b"content-length", b"%d" % len(body))]
    await plane.dataplane({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
    start, *rest = sent
    assert not rest[-1].get("more_body")
    return start["status"], dict(start["headers"]), b"".join(message["body"] for message in rest)


def check(status: int, headers: dict[bytes, bytes], body: bytes) -> None:
    assert status in (200, 400, 404, 503), (status, body)
    assert headers[b"x-request-id"]
    assert headers[b"x-failsoft-policy"] == b"7"
    if status != 200:
        error = json.loads(body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return
    assert headers[b"x-failsoft-served-by"] == b"static"
    event_stream = headers[b"content-type"].startswith(b"text/event-stream")
    first = body.split(b"\n\n")[0].removeprefix(b"data: ") if event_stream else body
    assert json.loads(first)["degraded"]["served_by"] == "static"
    assert not event_stream or body.endswith(b"data: [DONE]\n\n")


LACKING = whole(b'{"error":{"message":"The model does not exist.","code":404}}', status=404)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/v1/chat/completions", "/v1/completions"]),
    batch=st.lists(
        st.tuples(requests, st.none() | st.tuples(st.integers(0, 500), st.binary(min_size=1, max_size=3))),
        min_size=1,
        max_size=8,
    ),
    pieces=st.integers(1, 4),
)
def test_no_request_makes_the_gateway_fail(
    path: str, batch: list[tuple[Any, tuple[int, bytes] | None]], pieces: int, tmp_path: Path
) -> None:
    async def ask_all() -> None:
        async with (
            ScriptedBox(LACKING) as box,
            Plane(compiled([NO_BOX, box.url], STEPS), state_dir=tmp_path) as plane,
        ):
            for request, damage in batch:
                check(*await call(plane, path, cut(json.dumps(request).encode(), damage), pieces))
            assert "internal_error" not in {alarm.kind for alarm in plane.alarms.current()}
            assert plane.idle
            assert plane.dataplane.in_flight == 0

    asyncio.run(ask_all())


deltas = st.fixed_dictionaries(
    {}, optional={"role": st.just("assistant") | anything, "content": st.text(max_size=5) | anything, "x": anything}
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 1) | anything,
        "delta": deltas | anything,
        "message": deltas | anything,
        "text": st.text(max_size=5) | anything,
        "finish_reason": st.sampled_from([None, "stop", "end_turn", "abort"]) | anything,
    },
)
payloads = st.fixed_dictionaries(
    {"choices": st.lists(choices, max_size=2) | anything},
    optional={
        "id": st.text(max_size=5) | anything,
        "created": st.integers() | st.floats(1e18, 1e300) | anything,
        "model": st.text(max_size=5) | anything,
        "usage": anything,
        "error": anything,
    },
) | st.dictionaries(st.text(max_size=8), anything)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/v1/chat/completions", "/v1/completions"]),
    answer=st.lists(payloads, max_size=6),
    stream=st.booleans(),
    box=st.booleans(),
)
def test_no_answer_of_an_upstream_makes_the_gateway_fail(
    path: str, answer: list[Any], stream: bool, box: bool, tmp_path: Path
) -> None:
    events = [b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in answer]
    plain = whole(json.dumps(answer[0]).encode() if answer else b"")
    request = {"model": ADAPTER, "messages": [], "prompt": "x", "stream": stream}

    async def ask() -> None:
        script = [STREAM_HEAD, *map(chunked, events), END] if stream else [plain]
        async with ScriptedBox(*script) as upstream:
            boxes = [upstream.url] if box else [NO_BOX]
            steps: list[Step] = [StaticStep("reduced")] if box else [provider_step(upstream.url), StaticStep("reduced")]
            async with Plane(compiled(boxes, steps), state_dir=tmp_path) as plane:
                status, headers, body = await call(plane, path, json.dumps(request).encode(), 1)
                assert status == 200 or (box and status in (400, 413, 422))
                if headers[b"content-type"].startswith(b"text/event-stream"):
                    assert body.endswith(b"data: [DONE]\n\n")
                else:
                    json.loads(body)
                assert "internal_error" not in {alarm.kind for alarm in plane.alarms.current()}
                await eventually(lambda: plane.idle)

    asyncio.run(ask())
