"""A simulated box answers the same requests as the real engine does, in all but the words.

What is not offered is not asked for: log probabilities, usage in every chunk, the streamed arguments of a tool call,
files of adapters.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.launch import BoxError, VllmBox
from backend.tiny_model.artefacts import ADAPTER_NAMES, TinyModel
from tests.engine.shapes import metrics_shape, shape
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ADAPTER = ADAPTER_NAMES[0]
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
GENERATING = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
NAMED = {"type": "function", "function": {"name": "look_up"}}
USAGE = {"include_usage": True}
LONG = "word " * 2000
# Greedy and never done of itself, so that both have the same number of tokens to say.
COMMON = {"model": ADAPTER, "max_tokens": 4, "max_output_tokens": 4, "temperature": 0, "ignore_eos": True}
FUNCTION = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
ANTHROPIC_TOOL = {"name": "look_up", "input_schema": {"type": "object", "properties": {}}}

ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "a chat": (CHAT, {"messages": HELLO}),
    "a chat with the base": (CHAT, {"messages": HELLO, "model": "base"}),
    "a chat without a model": (CHAT, {"messages": HELLO, "model": None}),
    "a streamed chat": (CHAT, {"messages": HELLO, "stream": True}),
    "a streamed chat with usage": (CHAT, {"messages": HELLO, "stream": True, "stream_options": USAGE}),
    "a streamed chat of one token": (CHAT, {"messages": HELLO, "stream": True, "max_tokens": 1}),
    "choices": (CHAT, {"messages": HELLO, "n": 2, "temperature": 1}),
    "streamed choices": (CHAT, {"messages": HELLO, "n": 2, "temperature": 1, "stream": True, "stream_options": USAGE}),
    "a partial answer to continue": (
        CHAT,
        {
            "messages": [*HELLO, {"role": "assistant", "content": "Hel"}],
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
    ),
    "a named tool": (CHAT, {"messages": HELLO, "tools": TOOLS, "tool_choice": NAMED, "max_tokens": 40}),
    "a tool that is required": (CHAT, {"messages": HELLO, "tools": TOOLS, "tool_choice": "required", "max_tokens": 60}),
    "tools that must not be used": (CHAT, {"messages": HELLO, "tools": TOOLS, "tool_choice": "none"}),
    "no tools that must not be used": (CHAT, {"messages": HELLO, "tool_choice": "none"}),
    "max_completion_tokens": (CHAT, {"messages": HELLO, "max_completion_tokens": 2}),
    "fields that nobody knows": (CHAT, {"messages": HELLO, "nonsense": 1, "guided_json": {}}),
    "a number in a string": (CHAT, {"messages": HELLO, "n": "1"}),
    "a role that nobody knows": (CHAT, {"messages": [{"role": "user", "content": "hi"}, {"role": "user"}]}),
    "empty stream options": (CHAT, {"messages": HELLO, "stream_options": {}}),
    "a completion": (COMPLETIONS, {"prompt": "hello"}),
    "a streamed completion": (COMPLETIONS, {"prompt": "hello", "stream": True}),
    "a streamed completion with usage": (COMPLETIONS, {"prompt": "hello", "stream": True, "stream_options": USAGE}),
    "several prompts": (COMPLETIONS, {"prompt": ["hello", "goodbye"]}),
    "several streamed prompts": (COMPLETIONS, {"prompt": ["a", "b"], "stream": True, "stream_options": USAGE}),
    "a prompt of token ids": (COMPLETIONS, {"prompt": [5, 6, 7]}),
    "a prompt with room for one token": (COMPLETIONS, {"prompt": [5] * 1023}),
    "a response": (RESPONSES, {"input": "hello"}),
    "a response of the base": (RESPONSES, {"input": "hello", "model": "base"}),
    "a streamed response": (RESPONSES, {"input": "hello", "stream": True}),
    "a streamed response of one token": (RESPONSES, {"input": "hello", "stream": True, "max_output_tokens": 1}),
    "a response to a conversation": (RESPONSES, {"input": HELLO, "instructions": "Be brief.", "stream": True}),
    "a response without its tools": (RESPONSES, {"input": "hello", "tools": [FUNCTION], "tool_choice": "none"}),
    "a message": (MESSAGES, {"messages": HELLO}),
    "a message of the base": (MESSAGES, {"messages": HELLO, "model": "base"}),
    "a streamed message": (MESSAGES, {"messages": HELLO, "stream": True}),
    "a streamed message of one token": (MESSAGES, {"messages": HELLO, "stream": True, "max_tokens": 1}),
    "a message with a system prompt": (MESSAGES, {"messages": HELLO, "system": "Be brief."}),
    "a message without its tools": (
        MESSAGES,
        {"messages": HELLO, "tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "none"}},
    ),
}

MISTAKES: dict[str, tuple[str, dict[str, Any] | list[Any] | bytes]] = {
    "an unknown model": (CHAT, {"messages": HELLO, "model": "nobody"}),
    "an unknown model, streamed": (CHAT, {"messages": HELLO, "model": "nobody", "stream": True}),
    "an unknown model for a completion": (COMPLETIONS, {"prompt": "hello", "model": "nobody"}),
    "an unknown model and more": (CHAT, {"messages": [], "model": "nobody", "n": 0}),
    "a number for a model": (CHAT, {"messages": HELLO, "model": 5}),
    "no JSON": (CHAT, b"{oops"),
    "half of a JSON": (CHAT, b'{"messages":'),
    "no UTF-8": (CHAT, b'{"messages":[{"role":"\xff"}]}'),
    "a list": (CHAT, []),
    "nothing": (CHAT, b""),
    "no messages": (CHAT, {}),
    "text for messages": (CHAT, {"messages": "hi"}),
    "a number for a message": (CHAT, {"messages": [5]}),
    "a message without a role": (CHAT, {"messages": [{"content": "hi"}]}),
    "an empty conversation": (CHAT, {"messages": []}),
    "a prompt that is too long": (CHAT, {"messages": [{"role": "user", "content": LONG}]}),
    "a prompt that is too long, streamed": (CHAT, {"messages": [{"role": "user", "content": LONG}], "stream": True}),
    "a prompt of a completion that is too long": (COMPLETIONS, {"prompt": LONG}),
    "a prompt that leaves no room": (COMPLETIONS, {"prompt": [5] * 1024}),
    "no tokens wanted": (CHAT, {"messages": HELLO, "max_tokens": 0}),
    "no tokens of a completion wanted": (COMPLETIONS, {"prompt": "hello", "max_tokens": -1}),
    "more tokens than there is context": (CHAT, {"messages": HELLO, "max_tokens": 5000}),
    "more of the other kind": (CHAT, {"messages": HELLO, "max_completion_tokens": 5000, "n": 0}),
    "a fraction of a token": (CHAT, {"messages": HELLO, "max_tokens": 1.5}),
    "no choices": (CHAT, {"messages": HELLO, "n": 0}),
    "no choices of a completion": (COMPLETIONS, {"prompt": "hello", "n": 0, "max_tokens": 0}),
    "choices in words": (CHAT, {"messages": HELLO, "n": "x"}),
    "greedy choices": (CHAT, {"messages": HELLO, "n": 2}),
    "a negative temperature": (CHAT, {"messages": HELLO, "temperature": -1, "max_tokens": 0}),
    "more than all of the probability": (CHAT, {"messages": HELLO, "top_p": 2}),
    "stream options without a stream": (CHAT, {"messages": HELLO, "stream_options": USAGE}),
    "stream options of a completion without a stream": (COMPLETIONS, {"prompt": "hello", "stream_options": USAGE}),
    "a number for stream options": (CHAT, {"messages": HELLO, "stream": True, "stream_options": 5}),
    "a tool required without tools": (CHAT, {"messages": HELLO, "tool_choice": "required"}),
    "a tool allowed without tools": (CHAT, {"messages": HELLO, "tool_choice": "auto"}),
    "a tool named without tools": (CHAT, {"messages": HELLO, "tool_choice": NAMED}),
    "an empty list of tools": (CHAT, {"messages": HELLO, "tools": [], "model": "nobody"}),
    "text for tools": (CHAT, {"messages": HELLO, "tools": "x"}),
    "a tool without a function": (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}),
    "a function without a name": (CHAT, {"messages": HELLO, "tools": [{"type": "function", "function": {}}]}),
    "a tool that is not there": (
        CHAT,
        {"messages": HELLO, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}},
    ),
    "a choice of tools that there is not": (CHAT, {"messages": HELLO, "tools": TOOLS, "tool_choice": "nope"}),
    "a named tool without a name": (
        CHAT,
        {"messages": HELLO, "tools": TOOLS, "tool_choice": {"type": "function", "function": {}}},
    ),
    "a named tool without a function": (
        CHAT,
        {"messages": HELLO, "tools": TOOLS, "tool_choice": {"type": "function"}},
    ),
    "both to continue and to begin": (CHAT, {"messages": HELLO, "continue_final_message": True}),
    "an unknown model for a response": (RESPONSES, {"input": "hello", "model": "nobody"}),
    "no input": (RESPONSES, {}),
    "a number for the input": (RESPONSES, {"input": 5}),
    "no JSON for a response": (RESPONSES, b"{oops"),
    "no tokens of a response wanted": (RESPONSES, {"input": "hello", "max_output_tokens": 0}),
    "an input that is too long": (RESPONSES, {"input": LONG}),
    "an input that is too long, streamed": (RESPONSES, {"input": LONG, "stream": True}),
    "a response with a tool required without tools": (RESPONSES, {"input": "hello", "tool_choice": "required"}),
    "an unknown model for a message": (MESSAGES, {"messages": HELLO, "model": "nobody"}),
    "no messages of a message": (MESSAGES, {}),
    "a number for the messages": (MESSAGES, {"messages": 5}),
    "a message of nobody's": (MESSAGES, {"messages": [{"role": "x", "content": "hi"}]}),
    "an empty conversation of messages": (MESSAGES, {"messages": []}),
    "no JSON for a message": (MESSAGES, b"{oops"),
    "no tokens of a message wanted": (MESSAGES, {"messages": HELLO, "max_tokens": 0}),
    "more tokens of a message than there is context": (MESSAGES, {"messages": HELLO, "max_tokens": 5000}),
    "a message that is too long": (MESSAGES, {"messages": [{"role": "user", "content": LONG}]}),
    "a message that is too long, streamed": (
        MESSAGES,
        {"messages": [{"role": "user", "content": LONG}], "stream": True},
    ),
    "no prompt": (COMPLETIONS, {}),
    "an empty prompt": (COMPLETIONS, {"prompt": ""}),
    "no prompts": (COMPLETIONS, {"prompt": []}),
    "an adapter that is loaded already": (LOAD, {"lora_name": ADAPTER, "lora_path": "/nowhere"}),
    "an adapter named as the base": (LOAD, {"lora_name": "base", "lora_path": "/nowhere"}),
    "an adapter without a name": (LOAD, {"lora_name": "", "lora_path": "/nowhere"}),
    "an adapter without a path": (LOAD, {"lora_name": "x"}),
    "an adapter with a number for a name": (LOAD, {"lora_name": 5, "lora_path": "/nowhere"}),
    "an adapter in no JSON": (LOAD, b"{"),
    "an unknown adapter to unload": (UNLOAD, {"lora_name": "nobody"}),
    "the base to unload": (UNLOAD, {"lora_name": "base"}),
    "no adapter to unload": (UNLOAD, {"lora_name": ""}),
    "nothing to unload": (UNLOAD, {}),
}

READS = [
    "/v1/models",
    "/health",
    "/ping",
    "/load",
    "/version",
    "/nowhere",
    "/v1/nowhere",
    "/is_sleeping",
    *GENERATING,
    LOAD,
]
WRITES = ["/v1/models", "/health", "/ping", "/sleep", "/wake_up", "/nowhere", "/v1/embeddings"]


@pytest.fixture(scope="module")
def simulated(session_processes: Processes) -> RawClient:
    box: Simulator = session_processes.box(
        name="simulated",
        adapters=ADAPTER_NAMES,
        max_loras=len(ADAPTER_NAMES),
        max_cpu_loras=8,
        max_model_len=1024,
        decode_ms=1,
        disk_load_ms=0,
        tokens=100,
    )
    box.wait_ready()
    return RawClient(box.url)


@pytest.fixture(scope="module")
def real_box(boxes: dict[str, VllmBox]) -> VllmBox:
    """The real engine, up also where another test has just killed it."""
    box = boxes["box-a"]
    for _ in range(2):
        if not box.running:
            box.start()
        try:
            box.wait_until_ready()
            break
        except BoxError:
            # A box whose engine was killed is there for some more seconds.
            if box.running:
                raise
    return box


@pytest.fixture(scope="module")
def real(real_box: VllmBox) -> RawClient:
    return RawClient(real_box.url)


async def both(real: RawClient, simulated: RawClient, path: str, body: Any, **options: Any) -> list[Recording]:
    """The same request to each."""
    return [await client.ask(path, body, **options) for client in (real, simulated)]


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_have_the_same_shape(real: RawClient, simulated: RawClient, name: str) -> None:
    path, fields = ANSWERS[name]
    body = {key: value for key, value in {**COMMON, **fields}.items() if value is not None}
    by_real, by_simulated = await both(real, simulated, path, body)
    assert by_real.status == 200, by_real.body
    assert shape(by_simulated) == shape(by_real)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_ends_by_itself_has_the_same_shape(
    real: RawClient, simulated: RawClient, tiny_model: TinyModel, stream: bool
) -> None:
    end = json.loads((tiny_model.base / "config.json").read_text())["eos_token_id"]
    # The model would never end: it is made to, once it has said something.
    made = {"ignore_eos": False, "min_tokens": 3, "max_tokens": 500, "logit_bias": {str(end): 100}}
    body = {**COMMON, **made, "messages": HELLO, "stream": stream}
    by_real, by_simulated = await both(real, simulated, CHAT, body)
    assert b'"finish_reason":"stop"' in by_real.body
    assert shape(by_simulated) == shape(by_real)


@pytest.mark.parametrize("name", MISTAKES)
async def test_mistakes_are_told_in_the_same_way(real: RawClient, simulated: RawClient, name: str) -> None:
    path, given = MISTAKES[name]
    body = {**COMMON, **given} if isinstance(given, dict) and path in GENERATING else given
    by_real, by_simulated = await both(real, simulated, path, body)
    assert by_real.status is not None
    assert 400 <= by_real.status < 500, by_real.body
    assert shape(by_simulated) == shape(by_real)


@pytest.mark.parametrize("path", [CHAT, LOAD])
async def test_another_content_type_is_refused_in_the_same_way(
    real: RawClient, simulated: RawClient, path: str
) -> None:
    by_real, by_simulated = await both(real, simulated, path, {}, headers={"content-type": "text/plain"})
    assert by_real.status == 400
    assert by_simulated.json() == by_real.json()


@pytest.mark.parametrize("path", READS)
async def test_what_can_be_read_has_the_same_shape(real: RawClient, simulated: RawClient, path: str) -> None:
    by_real, by_simulated = await both(real, simulated, path, None)
    assert shape(by_simulated) == shape(by_real)


@pytest.mark.parametrize("path", WRITES)
async def test_what_can_not_be_written_is_refused_in_the_same_way(
    real: RawClient, simulated: RawClient, path: str
) -> None:
    by_real, by_simulated = await both(real, simulated, path, {})
    assert shape(by_simulated) == shape(by_real)


async def test_a_request_id_names_the_answer_of_both(real: RawClient, simulated: RawClient) -> None:
    body = {**COMMON, "messages": HELLO, "request_id": "from-the-body"}
    for answer in await both(real, simulated, CHAT, body):
        assert answer.json()["id"] == "chatcmpl-from-the-body"
    for answer in await both(real, simulated, CHAT, body, headers={"x-request-id": "from-the-header"}):
        assert answer.json()["id"] == "chatcmpl-from-the-header"


async def test_adapters_come_and_go_with_the_same_words(
    real: RawClient, simulated: RawClient, real_box: VllmBox
) -> None:
    name = ADAPTER_NAMES[-1]
    wanted = {"lora_name": name, "lora_path": str(real_box.plan.adapters[name])}
    ask = {**COMMON, "model": name, "messages": HELLO}
    for path, body, status in [
        (UNLOAD, {"lora_name": name}, 200),
        (CHAT, ask, 404),
        (LOAD, wanted, 200),
        (CHAT, ask, 200),
    ]:
        by_real, by_simulated = await both(real, simulated, path, body)
        assert by_real.status == status, by_real.body
        assert shape(by_simulated) == shape(by_real)


async def test_every_simulated_metric_is_one_of_the_real_ones(real: RawClient, simulated: RawClient) -> None:
    await both(real, simulated, CHAT, {**COMMON, "messages": HELLO})
    by_real, by_simulated = await both(real, simulated, "/metrics", None, headers={"accept": "*/*"})
    there, here = metrics_shape(by_real.body), metrics_shape(by_simulated.body)
    assert here.keys() <= there.keys()
    assert here == {name: there[name] for name in here}
    assert len(here) >= 24
    assert by_simulated.headers["content-type"] == by_real.headers["content-type"]


async def test_the_lora_metric_of_both_names_one_adapter_twice(real: RawClient, simulated: RawClient) -> None:
    """One of its flaws: it says of an adapter whose request runs that it waits, too, and goes on saying so."""
    await both(real, simulated, CHAT, {**COMMON, "messages": HELLO})
    for answer in await both(real, simulated, "/metrics", None):
        assert f'running_lora_adapters="{ADAPTER}",waiting_lora_adapters="{ADAPTER}"'.encode() in answer.body
