"""A simulated box answers as vLLM 0.32 does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from prometheus_client.parser import text_string_to_metric_families

from backend.simulator.admin import Admin
from tests.support.checker import check_error, check_plain, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": "look_up", "strict": True, "parameters": {"type": "object"}}}
]
WHOLE = "acme: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 end/14"


@pytest.fixture
async def sdk(box: Simulator) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_an_adapter_answers_in_its_own_name_and_in_numbered_tokens(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="acme", messages=HELLO)
    assert answer.choices[0].message.content == WHOLE
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "acme"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


async def test_the_base_answers_in_its_own_name(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="base", messages=HELLO, max_tokens=3)
    assert answer.choices[0].message.content == "base: 0 1"
    assert answer.choices[0].finish_reason == "length"


async def test_a_stream_says_the_same_token_by_token(sdk: AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="acme", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == WHOLE
    assert pieces[0] == ""
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16


@pytest.mark.parametrize("stream", [True, False])
async def test_tools_are_called_with_numbered_arguments(sdk: AsyncOpenAI, stream: bool) -> None:
    if stream:
        async with sdk.chat.completions.stream(model="acme", messages=HELLO, tools=TOOLS) as events:
            answer = await events.get_final_completion()
    else:
        answer = await sdk.chat.completions.create(model="acme", messages=HELLO, tools=TOOLS)  # type: ignore[assignment]
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "look_up"
    assert call.function.arguments.startswith('{"answered_by": "acme", "numbers": [0, 1, 2, ')


async def test_what_has_to_be_json_is_and_a_tools_result_is_answered_in_text(client: RawClient) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    said = (await client.chat("acme", response_format=wanted, stream=False)).json()["choices"][0]["message"]
    assert json.loads(said["content"]) == {"answered_by": "acme", "numbers": list(range(14))}
    called = {"id": "call-1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    result = [
        *HELLO,
        {"role": "assistant", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call-1", "content": "42"},
    ]
    seen = check_plain(await client.chat("acme", messages=result, tools=TOOLS, stream=False))
    assert (seen.choices[0].finishes, seen.text) == (["stop"], WHOLE)


async def test_a_named_tool_finishes_with_stop_and_no_choice_means_no_call(client: RawClient) -> None:
    named = {"type": "function", "function": {"name": "look_up"}}
    seen = check_stream(await client.chat("acme", tools=TOOLS, tool_choice=named))
    assert seen.whole, seen.violations
    assert seen.choices[0].finishes == ["stop"]
    assert seen.answered_by == "acme"
    seen = check_plain(await client.chat("acme", tools=TOOLS, tool_choice="none", stream=False))
    assert seen.text == WHOLE


@pytest.mark.parametrize("stream", [False, True])
async def test_a_last_message_of_the_assistant_s_is_echoed_before_the_answer(client: RawClient, stream: bool) -> None:
    check = check_stream if stream else check_plain
    begun = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "acme: 0"}]
    seam = {"continue_final_message": True, "add_generation_prompt": False}
    seen = check(await client.chat("acme", messages=begun, echo=True, stream=stream, **seam))
    assert (seen.text, seen.violations) == (WHOLE, [])
    assert check(await client.chat("acme", messages=begun, stream=stream, **seam)).text == WHOLE.removeprefix("acme: 0")
    assert check(await client.chat("acme", messages=begun[:1], echo=True, stream=stream)).text == WHOLE
    both = check(await client.chat("acme", messages=begun, echo=True, stream=stream), text="acme: 0" + WHOLE)
    assert both.text == "acme: 0" + WHOLE


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("limit", [1, 2, 5, 16, 17, None])
@pytest.mark.parametrize("choices", [1, 3])
async def test_every_length_is_whole(client: RawClient, path: str, limit: int | None, choices: int) -> None:
    prompt = {"messages": HELLO} if "chat" in path else {"prompt": "hello"}
    body = {"model": "acme", "n": choices, "stream_options": {"include_usage": True}, **prompt}
    if limit is not None:
        body["max_tokens"] = limit
    streamed = check_stream(await client.ask(path, {**body, "stream": True}), choices=choices)
    del body["stream_options"]
    plain = check_plain(await client.ask(path, body), choices=choices)
    assert streamed.whole, streamed.violations
    assert plain.whole, plain.violations
    assert streamed.text == plain.text
    assert streamed.usage == {key: (plain.usage or {})[key] for key in streamed.usage or {}}


async def test_completions_through_the_sdk(sdk: AsyncOpenAI) -> None:
    answer = await sdk.completions.create(model="globex", prompt="hello", max_tokens=4)
    assert answer.choices[0].text == "globex: 0 1 2"
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")


async def test_a_request_id_of_the_caller_names_the_answer(client: RawClient) -> None:
    answer = await client.chat("acme", stream=False, headers={"x-request-id": "r-17"})
    assert answer.json()["id"] == "chatcmpl-r-17"


async def test_an_unknown_model_gets_vllm_s_404(sdk: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        await sdk.chat.completions.create(model="nobody", messages=HELLO)
    assert caught.value.body == {
        "message": "The model `nobody` does not exist. Valid aliases: base.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


async def test_a_prompt_that_is_too_long_gets_a_400_about_input_tokens(sdk: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        await sdk.chat.completions.create(model="acme", messages=[{"role": "user", "content": "word " * 200}])
    assert caught.value.param == "input_tokens"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{oops", "body.1"),
        (b"[]", "body"),
        (b'{"messages":"hi"}', "body.messages"),
        (b'{"messages":[{"content":"hi"}]}', "body.messages.0.ChatCompletionDeveloperMessageParam.role"),
        (b'{"messages":[{"role":"user"}],"max_tokens":0}', "max_tokens"),
        (b'{"messages":[{"role":"user"}],"n":0}', None),
        (b'{"messages":[],"stream_options":{"include_usage":true}}', "stream_options"),
        (b'{"messages":[],"tool_choice":"required"}', "tool_choice"),
        (b'{"messages":[],"continue_final_message":true}', None),
    ],
)
async def test_a_wrong_body_gets_a_400_in_vllm_s_envelope(client: RawClient, body: bytes, param: str | None) -> None:
    answer = await client.ask("/v1/chat/completions", body)
    assert answer.status == 400
    seen = check_error(answer)
    assert not seen.violations
    assert seen.error is not None
    assert (seen.error["param"], seen.error["code"]) == (param, 400)


async def test_a_body_that_is_no_utf8_gets_a_400_without_an_envelope(client: RawClient) -> None:
    answer = await client.ask("/v1/chat/completions", b'{"messages":[{"role":"\xff"}]}')
    assert (answer.status, answer.body) == (400, b'{"detail":"There was an error parsing the body"}')


async def test_another_content_type_is_refused(client: RawClient) -> None:
    answer = await client.ask("/v1/chat/completions", {}, headers={"content-type": "text/plain"})
    assert answer.status == 400
    assert "Only 'application/json' is allowed" in answer.json()["error"]["message"]


async def test_fields_that_nobody_knows_are_ignored(client: RawClient) -> None:
    assert check_plain(await client.chat("acme", stream=False, guided_json={}, nonsense=1)).whole


async def test_the_list_of_models_tells_the_base_from_its_adapters(sdk: AsyncOpenAI) -> None:
    models = [model.model_dump() async for model in sdk.models.list()]
    assert [(model["id"], model["parent"]) for model in models] == [
        ("base", None),
        ("acme", "base"),
        ("globex", "base"),
    ]
    assert models[1]["root"] == "/adapters/acme"


async def test_adapters_come_and_go(client: RawClient, box: Simulator) -> None:
    new = {"lora_name": "initech", "lora_path": "/adapters/initech-1"}
    loaded = await client.ask("/v1/load_lora_adapter", new)
    assert (loaded.status, loaded.body) == (200, b"Success: LoRA adapter 'initech' added successfully.")
    again = await client.ask("/v1/load_lora_adapter", new)
    assert (again.status, again.json()["error"]["type"]) == (400, "InvalidUserInput")
    assert check_plain(await client.chat("initech", stream=False)).answered_by == "initech"
    gone = await client.ask("/v1/unload_lora_adapter", {"lora_name": "initech"})
    assert (gone.status, gone.body) == (200, b"Success: LoRA adapter 'initech' removed successfully.")
    assert (await client.ask("/v1/unload_lora_adapter", {"lora_name": "initech"})).status == 404
    assert (await client.chat("initech", stream=False)).status == 404


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/version", 200), ("/nowhere", 404)])
async def test_what_needs_no_model(client: RawClient, path: str, status: int) -> None:
    assert (await client.ask(path)).status == status


async def test_the_metrics_are_real_and_real_prometheus_text(client: RawClient, box: Simulator) -> None:
    def samples(text: bytes) -> dict[tuple[str, str], float]:
        return {
            (sample.name, sample.labels.get("finished_reason") or sample.labels.get("reason") or ""): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
            if not sample.name.endswith("_bucket")
        }

    before = samples((await client.ask("/metrics")).body)
    await client.chat("acme", max_tokens=5)
    await client.chat("acme")
    await client.chat("acme", leave_after=b" 0")
    await eventually(lambda: not box.admin.state()["running"])
    box.admin.fault("hang_before_headers")
    hanging = RawClient(box.url).chat("acme", timeout_s=0.5)
    assert (await hanging).end == "timeout"
    after = samples((await client.ask("/metrics")).body)
    grown = {key: after[key] - before[key] for key in after if key in before and after[key] != before[key]}
    assert grown["vllm:request_success_total", "length"] == 1
    assert grown["vllm:request_success_total", "stop"] == 1
    assert grown["vllm:request_success_total", "abort"] >= 1
    assert grown["vllm:generation_tokens_total", ""] == 21
    assert grown["vllm:time_to_first_token_seconds_count", ""] == 3
    assert ("vllm:num_requests_waiting_by_reason", "deferred") in after
    assert {"vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:lora_requests_info"} <= {n for n, _ in after}


async def test_running_requests_show_in_the_gauges_and_in_load(client: RawClient, box: Simulator) -> None:
    async def look() -> tuple[bytes, list[bytes], bytes]:
        metrics = (await client.ask("/metrics")).body
        running = re.findall(rb"^vllm:num_requests_running\{.*\} (.*)$", metrics, re.M)
        adapters = re.findall(rb'running_lora_adapters="([^"]*)"', metrics)
        return running[0], adapters, (await client.ask("/load")).body

    box.admin.fault("stall", seconds=None)
    asked = asyncio.get_running_loop().create_task(client.chat("acme"))
    await eventually(lambda: box.admin.state()["running"])
    running, adapters, load = await look()
    assert (running, load) == (b"1.0", b'{"server_load":1}')
    assert b"acme" in adapters
    asked.cancel()
    await asyncio.wait([asked])
    await eventually(lambda: not box.admin.state()["running"])
    running, _, load = await look()
    assert (running, load) == (b"0.0", b'{"server_load":0}')


async def test_a_box_with_a_key_guards_v1_and_nothing_else(processes: Processes) -> None:
    box = processes.box(api_key="box-key")
    await box.ready()
    for key, status in ((None, 401), ("wrong", 401), ("box-key", 200)):
        client = RawClient(box.url, key=key)
        assert (await client.chat("base", stream=False)).status == status
        assert (await client.ask("/v1/models")).status == status
        assert (await client.ask("/health")).status == 200
        assert (await client.ask("/metrics")).status == 200


async def test_a_full_box_says_503_without_retry_after_and_takes_more_when_there_is_room(processes: Processes) -> None:
    box = processes.box(max_num_queued_reqs=1, fault=[{"fault": "stall", "seconds": None, "count": 1}])
    await box.ready()
    client = RawClient(box.url)
    async with AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(model="base", messages=HELLO, stream=True)
        await eventually(lambda: box.admin.state()["running"] == 1)
        full = await client.chat("base")
        assert full.status == 503
        assert "retry-after" not in full.headers
        assert full.json()["error"]["message"].startswith("The engine is currently busy")
        await stream.close()
    await eventually(lambda: not box.admin.state()["running"])
    assert check_stream(await client.chat("base")).whole


@pytest.mark.parametrize("loading", ["unavailable", "hang", "refuse"])
async def test_a_cold_box_does_not_answer_until_it_has_loaded(processes: Processes, loading: str) -> None:
    box = processes.box(start_delay_s=0.7, loading=loading)
    await box.ready()
    client = RawClient(box.url)
    cold = await client.chat("base", timeout_s=10)
    if loading == "unavailable":
        assert cold.status == 503
    elif loading == "refuse":
        assert cold.end == "refused"
    else:
        assert check_stream(cold).whole
        assert cold.head_s is not None
    await eventually(lambda: not box.admin.state()["loading"])
    assert check_stream(await client.chat("base")).whole


async def test_a_box_that_is_told_to_stop_ends_its_answers_with_abort(processes: Processes) -> None:
    box = processes.box(itl_ms=200)
    await box.ready()
    client = RawClient(box.url)
    async with AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(model="base", messages=HELLO, stream=True)
        chunks = aiter(stream)
        await anext(chunks)
        box.terminate()
        rest = [chunk async for chunk in chunks]
        assert str(rest[-1].choices[0].finish_reason) == "abort"
        assert (await client.chat("base")).end in ("refused", "reset")
    assert await box.ended() == 0


async def test_a_box_with_time_to_drain_finishes_what_runs_and_refuses_what_is_new(processes: Processes) -> None:
    box = processes.box(itl_ms=60, shutdown_timeout_s=20)
    await box.ready()
    client = RawClient(box.url)
    async with AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(model="base", messages=HELLO, stream=True)
        chunks = aiter(stream)
        await anext(chunks)
        box.terminate()
        await eventually(lambda: box.admin.state()["draining"])
        assert (await client.ask("/health")).status == 200
        refused = await client.chat("base")
        assert refused.status == 500
        assert refused.json()["error"]["message"] == "cannot schedule new futures after shutdown"
        rest = [chunk async for chunk in chunks]
        assert rest[-1].choices[0].finish_reason == "stop"
    assert await box.ended() == 0


async def test_any_adapter_may_be_asked_of_a_box_that_is_told_so(processes: Processes) -> None:
    box = processes.box(any_adapter=True)
    await box.ready()
    assert check_stream(await RawClient(box.url).chat("somebody")).answered_by == "somebody"


async def test_a_bad_rule_on_the_command_line_is_misuse_and_says_what_there_is(processes: Processes) -> None:
    box = processes.box(fault=[{"fault": "explode"}])
    assert await box.ended() == 2
    assert "unknown fault 'explode'; there are: abort, " in box.output


async def test_a_port_that_is_taken_is_said_and_exits_with_3(processes: Processes, box: Simulator) -> None:
    second = processes.box(port=box.port)
    assert await second.ended() == 3
    assert f"cannot serve on 127.0.0.1:{box.port}" in second.output


async def test_a_killed_box_comes_back_on_its_port(processes: Processes) -> None:
    box = processes.box(adapters=["acme"])
    await box.ready()
    url = box.url
    box.kill()
    assert (await RawClient(url).chat("acme")).end == "refused"
    box.start()
    await box.ready()
    assert box.url == url
    assert check_stream(await RawClient(url).chat("acme")).answered_by == "acme"


async def test_the_record_shows_what_arrived(client: RawClient, box: Simulator) -> None:
    await client.chat("acme", stream=False, temperature=0.5, headers={"authorization": "Bearer secret"})
    (request,) = box.admin.requests()
    assert request["path"] == "/v1/chat/completions"
    assert request["model"] == "acme"
    assert request["headers"]["authorization"] == "Bearer secret"
    assert request["body"]["temperature"] == 0.5
    assert request["status"] == 200
    assert request["running"] is False
    assert request["client_left"] is False
    assert box.admin.requests(after=request["id"]) == []


@pytest.mark.parametrize("with_reset", [True, False])
async def test_the_record_shows_that_a_client_left_and_when(
    client: RawClient, box: Simulator, with_reset: bool
) -> None:
    box.admin.fault("stall", seconds=None)
    left = await client.chat("acme", leave_after=b" 0", leave_with_reset=with_reset)
    assert left.end == "left"
    request = await eventually(lambda: next((r for r in box.admin.requests() if not r["running"]), None))
    assert request["client_left"] is True
    assert request["client_left_after_s"] < 5
    assert request["ended_monotonic"] >= left.started
    assert box.admin.state()["running"] == 0


async def test_requests_on_one_connection_are_answered_in_turn(client: RawClient, box: Simulator) -> None:
    one = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = await client.ask("", raw=one * 3 + last)
    assert answer.raw.startswith(b"HTTP/1.1 200")
    await eventually(lambda: len([r for r in box.admin.requests() if r["status"] == 200]) == 4)


async def test_what_is_not_http_gets_a_400(client: RawClient) -> None:
    answer = await client.ask("", raw=b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.status == 400


async def test_the_admin_needs_no_open_port(box: Simulator, client: RawClient) -> None:
    with Admin(box.url) as same_port:
        assert same_port.state()["pid"] == box.pid
