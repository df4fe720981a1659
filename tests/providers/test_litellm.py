"""The real LiteLLM, in its worker, before an API that is not OpenAI's: what goes in, what comes back, what breaks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from gateway.dataplane.plain_guard import check_plain
from gateway.dataplane.stream_guard import StreamGuard
from gateway.errors import ErrorFrame
from gateway.observe.alarms import Alarms
from gateway.policy.compiled import ProviderStep
from gateway.upstream import litellm_process
from gateway.upstream.exchange import Exchange
from gateway.upstream.provider_answer import AnswerShape
from gateway.upstream.provider_request import Endpoint, translate
from gateway.upstream.providers import Providers
from tests.providers import anthropic_api as anthropic
from tests.providers import policies
from tests.providers.policies import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "anthropic/claude-test-1"
HELLO: dict[str, Any] = {"model": "acme_v1", "messages": [{"role": "user", "content": "Hello"}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Look up an order.",
        "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}},
    },
}


class Gateway:
    """Asks through :class:`Providers` as the data plane does."""

    def __init__(self, providers: Providers, alarms: Alarms) -> None:
        self.providers = providers
        self.alarms = alarms

    async def ask(self, step: ProviderStep, body: dict[str, Any]) -> Exchange:
        call = self.providers.call(step, request_id="req-1")
        until = asyncio.get_running_loop().time() + 90
        exchange = await call.pool.exchange(call.head, msgspec.json.encode(body), until)
        exchange.until = until
        return exchange

    async def plain(self, step: ProviderStep, fields: dict[str, Any], endpoint: Endpoint = "chat") -> Any:
        """The body of a 200, checked and shaped."""
        exchange = await self.ask(step, translate(step, endpoint, fields))
        body = await exchange.read_all(1 << 20)
        assert exchange.status == 200, body
        check_plain(body)
        return json.loads(AnswerShape(endpoint, include_usage=False).body(body))

    async def stream(self, step: ProviderStep, fields: dict[str, Any], endpoint: Endpoint = "chat") -> Streamed:
        """A stream as the client would see it."""
        body = translate(step, endpoint, fields | {"stream": True})
        exchange = await self.ask(step, body)
        assert exchange.status == 200, await exchange.read_all(1 << 20)
        shape = AnswerShape(endpoint, include_usage="stream_options" in fields)
        guard = StreamGuard(reshape=shape.frame)
        out = b""
        while guard.error is None and not guard.complete:
            data = await exchange.read()
            out += guard.feed(data) if data else guard.eof()
        exchange.close()
        return Streamed(guard, out)

    async def refusal(self, step: ProviderStep, *, stream: bool = False) -> tuple[int, bytes | None, Any]:
        """Status, ``retry-after`` and error object."""
        exchange = await self.ask(step, translate(step, "chat", HELLO | {"stream": stream}))
        body = json.loads(await exchange.read_all(1 << 20))
        return exchange.status, exchange.header(b"retry-after"), body["error"]


class Streamed:
    """What left of a stream."""

    def __init__(self, guard: StreamGuard, out: bytes) -> None:
        self.guard = guard
        self.frames = [json.loads(event[6:]) for event in out.split(b"\n\n") if event and event != b"data: [DONE]"]
        self.choices = [choice for frame in self.frames for choice in frame["choices"]]

    @property
    def text(self) -> str:
        return "".join(choice["delta"].get("content") or "" for choice in self.choices)

    @property
    def finishes(self) -> list[str]:
        return [choice["finish_reason"] for choice in self.choices if choice["finish_reason"]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    alarms = policies.alarms()
    providers = Providers(state_dir=tmp_path_factory.mktemp("state"), alarms=alarms)
    providers.follow(policies.compiled(policies.step(MODEL)))
    yield Gateway(providers, alarms)
    await providers.close()


@pytest_asyncio.fixture(loop_scope="module")
async def api() -> AsyncIterator[anthropic.AnthropicApi]:
    async with anthropic.AnthropicApi() as server:
        yield server


@pytest.fixture
def step(api: anthropic.AnthropicApi) -> ProviderStep:
    return policies.step(MODEL, api_base=api.url)


async def test_a_plain_answer_is_openais(gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep) -> None:
    api.script = anthropic.plain("Hello yourself.")
    answer = await gateway.plain(step, HELLO)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "claude-test-1"
    assert answer["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Hello yourself."}, "finish_reason": "stop"}
    ]
    assert answer["usage"]["prompt_tokens"] == 7
    assert answer["usage"]["completion_tokens"] == 3


async def test_the_provider_is_asked_in_its_own_words_with_its_own_key(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    step = ProviderStep(step.provider, step.model, system_prompt="Be brief.")
    await gateway.plain(step, HELLO | {"max_tokens": 9, "top_k": 3, "seed": 1, "chat_template_kwargs": {"a": 1}})
    seen = api.seen[0]
    assert seen.target == "/v1/messages"
    assert seen.headers["x-api-key"] == "sk-provider-1"
    assert "authorization" not in seen.headers
    assert not [name for name in seen.headers if name.startswith("x-failsoft")]
    assert seen.body["model"] == "claude-test-1"
    assert seen.body["max_tokens"] == 9
    assert "Be brief." in json.dumps(seen.body["system"])
    assert not seen.body.keys() & {"top_k", "seed", "chat_template_kwargs"}


async def test_a_stream_is_relayed_whole(gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep) -> None:
    words = ["One ", "two ", "three."]
    api.script = anthropic.stream(*anthropic.opening(), *map(anthropic.text_delta, words), *anthropic.closing())
    streamed = await gateway.stream(step, HELLO | {"stream_options": {"include_usage": True}})
    assert streamed.guard.complete
    assert streamed.text == "One two three."
    assert streamed.finishes == ["stop"]
    assert streamed.choices[0]["delta"]["role"] == "assistant"
    assert len({(frame["id"], frame["created"], frame["model"]) for frame in streamed.frames}) == 1
    assert streamed.frames[0]["model"] == "claude-test-1"
    usages = [frame["usage"] for frame in streamed.frames if frame.get("usage")]
    assert [(usage["prompt_tokens"], usage["completion_tokens"]) for usage in usages] == [(7, 3)]


async def test_usage_that_was_not_asked_for_does_not_come(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    api.script = anthropic.stream(*anthropic.opening(), anthropic.text_delta("Hi"), *anthropic.closing())
    streamed = await gateway.stream(step, HELLO)
    assert streamed.guard.complete
    assert not [frame for frame in streamed.frames if "usage" in frame]


async def test_a_tool_call_streams_through(gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep) -> None:
    api.script = anthropic.stream(*anthropic.tool_events("lookup", '{"ord', 'er": 12}'))
    streamed = await gateway.stream(step, HELLO | {"tools": [TOOL]})
    assert streamed.guard.complete
    assert streamed.finishes == ["tool_calls"]
    calls = [call for choice in streamed.choices for call in choice["delta"].get("tool_calls", ())]
    assert calls[0]["id"] == "toolu_1"
    assert calls[0]["function"]["name"] == "lookup"
    assert {call["index"] for call in calls} == {0}
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"order": 12}
    assert api.seen[0].body["tools"][0]["name"] == "lookup"


async def test_a_plain_tool_call_comes_through(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "lookup", "input": {"order": 12}}
    api.script = anthropic.plain(content=[block], stop="tool_use")
    (choice,) = (await gateway.plain(step, HELLO | {"tools": [TOOL]}))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert (call["id"], call["type"], call["function"]["name"]) == ("toolu_1", "function", "lookup")
    assert json.loads(call["function"]["arguments"]) == {"order": 12}


async def test_a_completion_is_answered_from_chat(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    fields = {"model": "acme_v1", "prompt": "Once upon"}
    api.script = anthropic.plain(" a time", stop="max_tokens")
    answer = await gateway.plain(step, fields, "completions")
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"index": 0, "text": " a time", "logprobs": None, "finish_reason": "length"}]
    assert api.seen[0].body["max_tokens"] == 16


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(anthropic.stream(*anthropic.opening(), anthropic.text_delta("Half")), id="clean end of file"),
        pytest.param(anthropic.reset_after(*anthropic.opening(), anthropic.text_delta("Half")), id="reset"),
        pytest.param(
            anthropic.raw(
                anthropic.STREAM_HEAD
                + b"".join(anthropic.sse(event) for event in (*anthropic.opening(), anthropic.text_delta("Half")))
                + b'data: {"type": "content_bl'
            ),
            id="cut frame",
        ),
        pytest.param(
            anthropic.stream(
                *anthropic.opening(),
                anthropic.text_delta("Half"),
                {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            ),
            id="error event",
        ),
    ],
)
async def test_a_broken_stream_ends_with_an_error_and_no_invented_finish(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep, script: anthropic.Script
) -> None:
    api.script = script
    streamed = await gateway.stream(step, HELLO)
    assert streamed.text == "Half"
    assert streamed.finishes == []
    assert isinstance(streamed.guard.error, ErrorFrame)
    assert not streamed.guard.complete


OPENAIS_HALF = b'data: {"id":"1","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Half"}}]}\n\n'
OPENAIS_END = b'data: {"id":"1","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
GEMINIS_HALF = b'data: {"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"Half"}]}}]}\n\n'
GEMINIS_END = (
    b'data: {"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"."}]},"finishReason":"STOP"}]}\n\n'
)


@pytest.mark.parametrize(
    ("model", "half", "end"),
    [
        ("mistral/mistral-small", OPENAIS_HALF, OPENAIS_END),
        ("deepseek/deepseek-chat", OPENAIS_HALF, OPENAIS_END),
        ("groq/llama", OPENAIS_HALF, OPENAIS_END),
        ("azure/deployment", OPENAIS_HALF, OPENAIS_END),
        ("gemini/gemini-test", GEMINIS_HALF, GEMINIS_END),
    ],
    ids=["mistral", "deepseek", "groq", "azure", "gemini"],
)
async def test_other_dialects_finish_only_when_the_provider_does(
    gateway: Gateway, api: anthropic.AnthropicApi, model: str, half: bytes, end: bytes
) -> None:
    step = policies.step(model, api_base=api.url)
    api.script = anthropic.raw(anthropic.STREAM_HEAD + half + end)
    whole = await gateway.stream(step, HELLO)
    assert whole.guard.complete
    assert whole.finishes == ["stop"]
    done = b"data: [DONE]\n\n"
    for rest in (
        b"",
        done,
        b'data: {"error":{"message":"died","code":500}}\n\n' + done,
        b'data: {"id\n\n' + end + done,
    ):
        api.script = anthropic.raw(anthropic.STREAM_HEAD + half + rest)
        broken = await gateway.stream(step, HELLO)
        assert broken.text == "Half", rest
        assert broken.finishes == [], rest
        assert isinstance(broken.guard.error, ErrorFrame)


async def test_an_answer_about_done_is_not_cut_there(gateway: Gateway, api: anthropic.AnthropicApi) -> None:
    step = policies.step("mistral/mistral-small", api_base=api.url)
    text = OPENAIS_HALF.replace(b"Half", b"The end is [DONE].")
    api.script = anthropic.raw(anthropic.STREAM_HEAD + text + OPENAIS_HALF + OPENAIS_END + b"data: [DONE]\n\n")
    streamed = await gateway.stream(step, HELLO)
    assert streamed.text == "The end is [DONE].Half"
    assert streamed.finishes == ["stop"]


async def test_geminis_metadata_after_the_finish_does_not_break_its_stream(
    gateway: Gateway, api: anthropic.AnthropicApi
) -> None:
    step = policies.step("gemini/gemini-test", api_base=api.url)
    usage = b'data: {"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":3,"totalTokenCount":10}}\n\n'
    end = GEMINIS_END.replace(b'"."', b'""')
    api.script = anthropic.raw(anthropic.STREAM_HEAD + GEMINIS_HALF + end + usage)
    streamed = await gateway.stream(step, HELLO | {"stream_options": {"include_usage": True}})
    assert streamed.guard.complete
    assert streamed.finishes == ["stop"]
    assert [frame["usage"]["prompt_tokens"] for frame in streamed.frames if "usage" in frame] == [7]


async def test_a_tool_call_that_broke_off_is_not_finished(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    api.script = anthropic.stream(*anthropic.tool_events("lookup", '{"ord', 'er": 12}')[:3])
    streamed = await gateway.stream(step, HELLO | {"tools": [TOOL]})
    assert streamed.finishes == []
    assert isinstance(streamed.guard.error, ErrorFrame)


async def test_a_stream_without_content_is_refused_before_its_200(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    api.script = anthropic.raw(anthropic.STREAM_HEAD)
    code, _, error = await gateway.refusal(step, stream=True)
    assert code == 502
    assert "finish_reason" in error["message"]


async def test_a_cut_plain_answer_is_refused(gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep) -> None:
    api.script = anthropic.cut_plain()
    code, _, _ = await gateway.refusal(step)
    assert code >= 500


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("code", "kind", "expected", "type_"),
    [
        (401, "authentication_error", 401, "authentication_error"),
        (403, "permission_error", 403, "permission_error"),
        (404, "not_found_error", 404, "not_found_error"),
        (400, "invalid_request_error", 400, "invalid_request_error"),
        (500, "api_error", 500, "api_error"),
        (529, "overloaded_error", 500, "api_error"),
    ],
)
async def test_an_error_keeps_its_status(
    gateway: Gateway,
    api: anthropic.AnthropicApi,
    step: ProviderStep,
    code: int,
    kind: str,
    expected: int,
    type_: str,
    stream: bool,
) -> None:
    api.script = anthropic.error_status(code, kind, message="bad key sk-provider-1")
    status, _, error = await gateway.refusal(step, stream=stream)
    assert status == error["code"] == expected
    assert error["type"] == type_
    assert error["message"]
    assert "sk-provider-1" not in error["message"]
    assert len(api.seen) == 1, "LiteLLM tried again by itself"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_rate_limit_keeps_its_retry_after(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep, stream: bool
) -> None:
    api.script = anthropic.error_status(429, "rate_limit_error", headers="retry-after: 7\r\n")
    status, retry_after, error = await gateway.refusal(step, stream=stream)
    assert (status, retry_after) == (429, b"7")
    assert error["type"] == "rate_limit_error"
    assert len(api.seen) == 1


async def test_a_retry_after_that_is_a_date_becomes_the_seconds_until_then(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    headers = "date: Wed, 25 Nov 2026 10:00:00 GMT\r\nretry-after: Wed, 25 Nov 2026 10:00:07 GMT\r\n"
    api.script = anthropic.error_status(429, "rate_limit_error", headers=headers)
    status, retry_after, _ = await gateway.refusal(step, stream=False)
    assert (status, retry_after) == (429, b"7")


async def test_a_provider_that_nobody_serves_is_a_server_error(gateway: Gateway) -> None:
    async with anthropic.AnthropicApi() as server:
        gone = policies.step(MODEL, api_base=server.url)
    status, _, _ = await gateway.refusal(gone)
    assert status >= 500


async def test_a_provider_that_litellm_does_not_know_is_refused(gateway: Gateway) -> None:
    status, _, error = await gateway.refusal(policies.step("nosuch-model"))
    assert status == 400
    assert "nosuch-model" in error["message"]


async def test_tools_are_never_dropped_for_a_provider_without_them(gateway: Gateway) -> None:
    step = policies.step("perplexity/sonar")
    body = translate(step, "chat", HELLO | {"tools": [TOOL]})
    exchange = await gateway.ask(step, body)
    assert exchange.status == 400
    assert b"does not take tools" in await exchange.read_all(1 << 20)


async def test_a_client_that_leaves_a_stream_ends_it_at_the_provider(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    api.script = anthropic.endless(*anthropic.opening())
    exchange = await gateway.ask(step, translate(step, "chat", HELLO | {"stream": True}))
    await exchange.read()
    exchange.close()
    await asyncio.wait_for(api.hung_up.wait(), 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_a_silent_provider_ends_the_request_there(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep, stream: bool
) -> None:
    api.script = anthropic.silent
    asking = asyncio.get_running_loop().create_task(
        gateway.ask(step, translate(step, "chat", HELLO | {"stream": stream}))
    )
    await asyncio.wait_for(api.asked.wait(), 30)
    asking.cancel()
    await asyncio.wait({asking})
    await asyncio.wait_for(api.hung_up.wait(), 5)


async def test_a_body_gives_litellm_no_orders(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    orders = {"api_base": "http://127.0.0.1:9", "api_key": "sk-client", "mock_response": "mocked", "num_retries": 3}
    body = translate(step, "chat", HELLO) | orders | {"metadata": {"a": "b"}}
    exchange = await gateway.ask(step, body)
    assert exchange.status == 200
    assert b"mocked" not in await exchange.read_all(1 << 20)
    assert api.seen[0].headers["x-api-key"] == "sk-provider-1"


async def test_requests_are_served_side_by_side(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    words = [f"{n} " for n in range(20)]
    api.script = anthropic.stream(*anthropic.opening(), *map(anthropic.text_delta, words), *anthropic.closing())
    answers = await asyncio.gather(*(gateway.stream(step, HELLO) for _ in range(10)))
    assert {answer.text for answer in answers} == {"".join(words)}
    assert all(answer.guard.complete for answer in answers)


async def test_a_worker_that_was_killed_is_started_again_and_what_waits_is_answered(
    gateway: Gateway, api: anthropic.AnthropicApi, step: ProviderStep
) -> None:
    worker = gateway.providers.litellm
    assert worker is not None
    await worker.ready()
    killed = worker.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    await until(lambda: worker.pid not in (killed, None))
    assert gateway.alarms.is_on(litellm_process.ALARM, "litellm")
    # The new worker still imports LiteLLM: the request waits for it in the socket's backlog.
    answer = await gateway.plain(step, HELLO)
    assert answer["choices"][0]["message"]["content"] == "hello"
    await worker.ready()
    assert not gateway.alarms.is_on(litellm_process.ALARM, "litellm")
