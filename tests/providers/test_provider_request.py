"""What a hosted provider is sent: vLLM's own fields go, what has a twin is mapped, the rest skips the step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from gateway.policy.compiled import ProviderStep
from gateway.upstream.provider_request import CHAT_FIELDS, translate, unsuited
from tests.providers import policies

DIRECT = policies.step("openai/gpt-4o-mini")
BEHIND_LITELLM = policies.step("anthropic/claude-x")

HELLO: dict[str, Any] = {"model": "acme_v1", "messages": [{"role": "user", "content": "Hello"}]}
PROMPT: dict[str, Any] = {"model": "acme_v1", "prompt": "Once upon", "max_tokens": 5}

VLLM_ONLY = [
    "use_beam_search", "top_k", "min_p", "repetition_penalty", "length_penalty", "stop_token_ids",
    "include_stop_str_in_output", "ignore_eos", "min_tokens", "skip_special_tokens", "spaces_between_special_tokens",
    "truncate_prompt_tokens", "prompt_logprobs", "allowed_token_ids", "bad_words", "add_special_tokens",
    "structured_outputs", "priority", "request_id", "session_id", "return_tokens_as_token_ids", "return_token_ids",
    "cache_salt", "kv_transfer_params", "vllm_xargs", "thinking_token_budget", "stream_interval", "include_reasoning",
    "echo", "add_generation_prompt", "continue_final_message", "documents", "chat_template", "chat_template_kwargs",
    "media_io_kwargs", "mm_processor_kwargs",
]  # fmt: skip


def with_step(**changes: Any) -> ProviderStep:
    return ProviderStep(DIRECT.provider, DIRECT.model, **changes)


@pytest.mark.parametrize("name", VLLM_ONLY)
def test_a_field_that_only_vllm_knows_is_not_sent(name: str) -> None:
    assert translate(DIRECT, "chat", HELLO | {name: 1}).keys() == {"model", "messages"}
    assert name not in translate(DIRECT, "completions", PROMPT | {name: 1})


def test_what_openai_knows_is_carried() -> None:
    carried = {
        "temperature": 0.2, "top_p": 0.9, "max_tokens": 5, "stop": ["x"], "seed": 1, "n": 2, "user": "u",
        "logprobs": True, "top_logprobs": 2, "tools": [{"type": "function"}], "tool_choice": "auto", "stream": True,
        "response_format": {"type": "json_object"}, "parallel_tool_calls": False, "reasoning_effort": "low",
    }  # fmt: skip
    usage = {"stream_options": {"include_usage": True}}
    assert translate(DIRECT, "chat", HELLO | carried) == HELLO | carried | usage | {"model": "gpt-4o-mini"}


def test_the_allow_list_is_the_openai_sdks() -> None:
    known = set(CompletionCreateParamsNonStreaming.__annotations__) | {"stream"}
    for base in CompletionCreateParamsNonStreaming.__orig_bases__:  # type: ignore[attr-defined]
        known |= set(base.__annotations__)
    assert known - CHAT_FIELDS == {"logit_bias"}


def test_the_model_is_the_steps() -> None:
    assert translate(DIRECT, "chat", HELLO)["model"] == "gpt-4o-mini"
    assert translate(BEHIND_LITELLM, "chat", HELLO)["model"] == "anthropic/claude-x"


def test_a_json_schema_becomes_a_response_format() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for given_as in (schema, '{"type": "object", "properties": {"a": {"type": "integer"}}}'):
        fields = HELLO | {"structured_outputs": {"json": given_as}}
        assert unsuited(DIRECT, "chat", fields) is None
        assert translate(DIRECT, "chat", fields)["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema},
        }


def test_a_json_object_becomes_a_response_format() -> None:
    fields = HELLO | {"structured_outputs": {"json_object": True}}
    assert translate(DIRECT, "chat", fields)["response_format"] == {"type": "json_object"}


def test_a_response_format_of_text_is_nothing_to_ask_for() -> None:
    assert "response_format" not in translate(DIRECT, "chat", HELLO | {"response_format": {"type": "text"}})


def test_the_house_style_comes_first_and_what_the_policy_drops_is_gone() -> None:
    step = with_step(system_prompt="Be brief.", drop=frozenset({"logprobs", "top_logprobs", "messages", "model"}))
    body = translate(step, "chat", HELLO | {"logprobs": True, "top_logprobs": 2})
    assert body == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    }


def test_an_earlier_turn_as_vllm_worded_it_is_one_that_openai_takes() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi", "reasoning": "hm", "reasoning_content": "hm", "tool_calls": [],
         "refusal": None, "audio": None, "function_call": None, "annotations": None},
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "12"},
    ]  # fmt: skip
    assert translate(DIRECT, "chat", {"model": "m", "messages": turns})["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "12"},
    ]


def test_empty_tools_and_what_goes_with_them_are_left_out() -> None:
    fields = HELLO | {"tools": [], "tool_choice": "none", "parallel_tool_calls": True, "stop": None}
    assert translate(DIRECT, "chat", fields).keys() == {"model", "messages"}


def test_streams_are_asked_for_what_they_took_and_stream_options_are_openais() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    streamed = translate(DIRECT, "chat", HELLO | {"stream": True, "stream_options": options})
    assert streamed["stream_options"] == {"include_usage": True}
    assert "stream_options" not in translate(DIRECT, "chat", HELLO | {"stream_options": options})
    only_vllms = {"stream": True, "stream_options": {"continuous_usage_stats": True}}
    assert translate(DIRECT, "chat", HELLO | only_vllms)["stream_options"] == {"include_usage": True}
    without = ProviderStep(DIRECT.provider, DIRECT.model, drop=frozenset({"stream_options"}))
    assert "stream_options" not in translate(without, "chat", HELLO | {"stream": True})


def test_a_completion_becomes_one_user_message() -> None:
    fields = PROMPT | {"temperature": 0, "stop": "x", "logprobs": 3, "best_of": 4, "stream": True, "echo": False}
    assert unsuited(DIRECT, "completions", fields) is None
    assert translate(DIRECT, "completions", fields) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Once upon"}],
        "max_tokens": 5,
        "temperature": 0,
        "stop": "x",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_completion_without_max_tokens_gets_the_sixteen_that_it_means() -> None:
    assert translate(DIRECT, "completions", {"prompt": "Once"})["max_tokens"] == 16
    assert "max_tokens" not in translate(DIRECT, "completions", {"prompt": "Once", "max_tokens": None})


@pytest.mark.parametrize(
    "fields",
    [
        {"continue_final_message": True},
        {"add_generation_prompt": False},
        {"echo": True},
        {"use_beam_search": True},
        {"structured_outputs": {"regex": "a+"}},
        {"structured_outputs": {"choice": ["a", "b"]}},
        {"structured_outputs": {"grammar": "root ::= 'a'"}},
        {"structured_outputs": {"structural_tag": "{}"}},
        {"structured_outputs": {"json": "not a schema"}},
        {"response_format": {"type": "structural_tag"}},
        {"allowed_token_ids": [1, 2]},
        {"prompt_logprobs": 0},
        {"documents": [{"text": "The order is late."}]},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}]},
    ],
)
def test_what_has_no_hosted_twin_skips_the_step_and_says_so(fields: dict[str, Any]) -> None:
    why = unsuited(DIRECT, "chat", HELLO | fields)
    assert why
    assert unsuited(DIRECT, "chat", HELLO) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ["one", "two"]},
        {"prompt": ["one"]},
        {"prompt": [1, 2, 3]},
        {"prompt": None},
        {"echo": True},
        {"suffix": "the end"},
        {"use_beam_search": True},
        {"structured_outputs": {"regex": "a+"}},
        {"prompt_embeds": "AAAA"},
    ],
)
def test_a_completion_that_chat_cannot_stand_for_skips_the_step(fields: dict[str, Any]) -> None:
    assert unsuited(DIRECT, "completions", PROMPT | fields)
    assert unsuited(DIRECT, "completions", PROMPT) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 5, "min_tokens": 3, "stop_token_ids": [1], "bad_words": ["x"], "chat_template_kwargs": {"a": 1}},
        {"continue_final_message": False, "add_generation_prompt": True, "echo": False, "use_beam_search": False},
        {"structured_outputs": None, "response_format": None, "documents": None, "prompt_logprobs": None},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    ],
)
def test_what_only_tunes_vllm_does_not_skip_the_step(fields: dict[str, Any]) -> None:
    assert unsuited(DIRECT, "chat", HELLO | fields) is None


def test_several_choices_are_not_asked_of_litellm() -> None:
    assert unsuited(DIRECT, "chat", HELLO | {"n": 2}) is None
    assert unsuited(BEHIND_LITELLM, "chat", HELLO | {"n": 2})
    assert unsuited(BEHIND_LITELLM, "chat", HELLO | {"n": 1}) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([*sorted(CHAT_FIELDS), *VLLM_ONLY, "logit_bias", "suffix", "api_base", "mock_response"])


@given(st.dictionaries(names, json_values, max_size=8), st.sampled_from([DIRECT, BEHIND_LITELLM]))
def test_no_request_breaks_the_translation_or_is_changed_by_it(fields: dict[str, Any], step: ProviderStep) -> None:
    before = copy.deepcopy(fields)
    unsuited(step, "chat", fields)
    body = translate(step, "chat", fields)
    assert body.keys() <= CHAT_FIELDS
    assert body["model"] == step.upstream_model
    if unsuited(step, "completions", fields | {"prompt": "x"}) is None:
        translate(step, "completions", fields | {"prompt": "x"})
    assert fields == before
