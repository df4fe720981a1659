"""What a hosted provider is sent in place of the request that was meant for vLLM.

Fields fall into four kinds. vLLM 0.32's own are listed in its ``openai/chat_completion/protocol.py`` and
``completion/protocol.py``, OpenAI's in the OpenAI SDK's ``CompletionCreateParams``. A request of the Responses or the
Messages API is first made a chat request (:mod:`gateway.upstream.responses_request`, ``messages_request``).

============ ======================================================================================================
carried      :data:`CHAT_FIELDS`, the parameters of OpenAI's chat completions. It is an allow-list: OpenAI answers
             an unknown field with a 400, which would fail the very request that is to be saved, and LiteLLM takes
             some (``api_base``, ``mock_response``, …) as orders to itself.
mapped       ``model``, ``prompt`` (one user message), ``structured_outputs`` with ``json`` or ``json_object``
             (``response_format``), ``max_tokens`` of a completion (its default of 16 is written out)
stripped     what only tunes how vLLM samples, schedules or reports: ``top_k``, ``min_p``, ``repetition_penalty``,
             ``stop_token_ids``, ``bad_words``, ``priority``, ``cache_salt``, ``chat_template_kwargs``, ``best_of``,
             …; ``logit_bias``, as its token ids are those of another tokenizer; a completion's ``logprobs``, whose
             shape chat does not have
unsuited     what an answer without it would get wrong in silence, so that the step is skipped and says why:
             see :func:`unsuited`
============ ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gateway.policy.compiled import ProviderStep
from gateway.upstream.chat_wire import NoTwin
from gateway.upstream.messages_request import messages_as_chat
from gateway.upstream.responses_request import responses_as_chat

Endpoint = Literal["chat", "completions", "responses", "messages", "embeddings"]

CHAT_FIELDS = frozenset({
    "audio", "frequency_penalty", "function_call", "functions", "logprobs", "max_completion_tokens", "max_tokens",
    "messages", "metadata", "modalities", "model", "moderation", "n", "parallel_tool_calls", "prediction",
    "presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort",
    "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options",
    "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
})  # fmt: skip
"""OpenAI's chat completions parameters that may travel. ``logit_bias`` is missing on purpose."""

_COMPLETION_FIELDS = frozenset({
    "frequency_penalty", "max_tokens", "n", "presence_penalty", "seed", "stop", "stream", "stream_options",
    "temperature", "top_p", "user",
})  # fmt: skip

_MESSAGE_FIELDS = frozenset({
    "audio", "content", "function_call", "name", "refusal", "role", "tool_call_id", "tool_calls",
})  # fmt: skip
"""Agents send back what they were given, so earlier turns carry vLLM's ``reasoning`` and ``reasoning_content``."""

_PART_TYPES = frozenset({"file", "image_url", "input_audio", "refusal", "text"})
_RESPONSE_FORMATS = frozenset({"json_object", "json_schema", "text"})
_STREAM_OPTIONS = frozenset({"include_obfuscation", "include_usage"})

_FIXED_CHOICES = ("regex", "choice", "grammar", "structural_tag")
"""Kinds of ``structured_outputs`` that no hosted API can promise."""

_KEPT = frozenset({"messages", "model", "stream"})
"""What ``drop`` cannot take away: without it there is no request, or an answer in another form than asked for."""

COMPLETION_MAX_TOKENS = 16
"""What ``max_tokens`` of a completion is by default, at OpenAI and in vLLM; chat has no such default."""


def unsuited(step: ProviderStep, endpoint: Endpoint, fields: Mapping[str, Any]) -> str | None:
    """Why ``step`` cannot serve a request with these ``fields``, or None if it can.

    - a prompt that is not one string; ``suffix``, ``echo: true``
    - ``continue_final_message: true``, ``add_generation_prompt: false``: a prefix cannot be continued at a hosted API
    - ``structured_outputs`` of a kind other than JSON, a ``response_format`` that OpenAI has not got,
      ``allowed_token_ids``: the client will parse the answer
    - ``use_beam_search``, ``prompt_logprobs``: another operation than sampling an answer
    - ``documents``, and content parts that OpenAI has not got (``video_url``, …): part of what is asked about
    - ``n`` over 1 behind LiteLLM, which relays the first choice only
    - what chat has no word for, of a request in another API's shape; embeddings
    """
    try:
        endpoint, fields = in_chat(endpoint, fields)
    except NoTwin as error:
        return str(error)
    why = _unsuited_completion(fields) if endpoint == "completions" else _unsuited_chat(fields)
    if why is not None:
        return why
    if fields.get("use_beam_search"):
        return "use_beam_search has no hosted twin"
    for name in ("allowed_token_ids", "prompt_logprobs"):
        if fields.get(name) is not None:
            return f"{name} has no hosted twin"
    n = fields.get("n")
    if not step.direct and isinstance(n, int) and n > 1:
        return "LiteLLM relays one choice only, and n is more"
    return _unsuited_format(fields)


def _unsuited_completion(fields: Mapping[str, Any]) -> str | None:
    if not isinstance(fields.get("prompt"), str):
        return "the prompt is not one string, and chat has no other form of it"
    if fields.get("prompt_embeds") is not None:
        return "prompt_embeds has no hosted twin"
    if fields.get("suffix"):
        return "suffix has no twin in chat"
    if fields.get("echo"):
        return "echo has no twin in chat"
    return None


def _unsuited_chat(fields: Mapping[str, Any]) -> str | None:
    if fields.get("continue_final_message") or fields.get("add_generation_prompt") is False:
        return "a prefix cannot be continued at a hosted API"
    if fields.get("echo"):
        return "echo has no hosted twin"
    if fields.get("documents"):
        return "documents has no hosted twin"
    messages = fields.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind not in _PART_TYPES:
                return f"a content part of type {kind!r} has no hosted twin"
    return None


def _unsuited_format(fields: Mapping[str, Any]) -> str | None:
    wanted = fields.get("structured_outputs")
    if isinstance(wanted, dict):
        for kind in _FIXED_CHOICES:
            if wanted.get(kind) is not None:
                return f"structured_outputs.{kind} has no hosted twin"
        if wanted.get("json") is not None and _schema(wanted["json"]) is None:
            return "structured_outputs.json is not a JSON schema"
    format_ = fields.get("response_format")
    type_ = format_.get("type") if isinstance(format_, dict) else None
    if isinstance(type_, str) and type_ not in _RESPONSE_FORMATS:
        return f"a response_format of type {type_!r} has no hosted twin"
    return None


def translate(step: ProviderStep, endpoint: Endpoint, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The chat completions body to send to the provider of ``step``; ``fields`` stays as it is.

    The policy has the last word: ``drop`` is applied to what would be sent (a model that takes no ``max_tokens`` or
    ``temperature`` is made good there), and its ``system_prompt`` goes before all other messages. Only a request that
    is not :func:`unsuited` may be given.
    """
    endpoint, fields = in_chat(endpoint, fields)
    carried = _COMPLETION_FIELDS if endpoint == "completions" else CHAT_FIELDS
    body = {name: value for name, value in fields.items() if name in carried and value is not None}
    if endpoint == "completions":
        body["messages"] = [{"role": "user", "content": fields["prompt"]}]
        if "max_tokens" not in fields:
            body["max_tokens"] = COMPLETION_MAX_TOKENS
    elif isinstance(body.get("messages"), list):
        body["messages"] = [_message(message) for message in body["messages"]]
    _tools(body)
    _stream(body)
    _format(body, fields)
    for name in step.drop - _KEPT:
        body.pop(name, None)
    body["model"] = step.upstream_model
    # What is no list is left for the provider to refuse: a prompt alone would be an answer to nothing.
    if step.system_prompt is not None and isinstance(body.get("messages"), list):
        body["messages"] = [{"role": "system", "content": step.system_prompt}, *body["messages"]]
    return body


def in_chat(endpoint: Endpoint, fields: Mapping[str, Any]) -> tuple[Endpoint, Mapping[str, Any]]:
    """The request as one of the two that are translated here. Raises :class:`NoTwin`."""
    match endpoint:
        case "responses":
            return "chat", responses_as_chat(fields)
        case "messages":
            return "chat", messages_as_chat(fields)
        case "embeddings":
            # Another model's vectors would corrupt the customer's index in silence.
            raise NoTwin("embeddings are made by the customer's own boxes only")
        case _:
            return endpoint, fields


def _message(message: object) -> object:
    if not isinstance(message, dict):
        return message
    # An assistant turn as vLLM words it has `tool_calls: []` and nulls, which OpenAI refuses.
    return {
        name: value
        for name, value in message.items()
        if name in _MESSAGE_FIELDS and (name == "content" or value is not None) and (name != "tool_calls" or value)
    }


def _tools(body: dict[str, Any]) -> None:
    # vLLM takes `tools: []`; OpenAI refuses it, and `tool_choice` without tools.
    for tools, companions in (("tools", ("tool_choice", "parallel_tool_calls")), ("functions", ("function_call",))):
        if not body.get(tools):
            for name in (tools, *companions):
                body.pop(name, None)


def _stream(body: dict[str, Any]) -> None:
    options = body.pop("stream_options", None)
    if not body.get("stream"):
        return
    given = options if isinstance(options, dict) else {}
    kept = {name: value for name, value in given.items() if name in _STREAM_OPTIONS and value is not None}
    # What it took has to be known, whether the client wants to or not.
    body["stream_options"] = kept | {"include_usage": True}


def _format(body: dict[str, Any], fields: Mapping[str, Any]) -> None:
    if body.get("response_format") == {"type": "text"}:
        # The default, which not every provider has a word for.
        del body["response_format"]
    wanted = fields.get("structured_outputs")
    if not isinstance(wanted, dict):
        return
    if (schema := _schema(wanted.get("json"))) is not None:
        # Without `strict`, which refuses every schema outside of a subset: a fallback has to take any.
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    elif wanted.get("json_object"):
        body["response_format"] = {"type": "json_object"}


def _schema(value: object) -> dict[str, Any] | None:
    """A JSON schema, given as an object or, as vLLM allows, as its text."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
