"""How vLLM is started on a box, as far as ops decide it: the keys under ``engine`` in fleet.yaml.

Gateways do not read them; ``failsoft backend`` does. What a fleet or a box says elsewhere (slots, rank, model, address)
is not repeated here.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway.policy.durations import Duration
from gateway.policy.keys import Keys
from gateway.policy.lora_resolvers import PLUGINS, turns_on
from gateway.policy.names import REFERENCE_PATTERN, Text

Count = Annotated[int, Field(ge=1, le=10_000_000)]

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(REFERENCE_PATTERN)
_SECRET_WORDS = frozenset({"KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIALS"})
_OWN_VARIABLES = {
    "VLLM_API_KEY": "write the box's api_key instead",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "write runtime_loading instead",
}


def _environment_name(value: str) -> str:
    if not _ENVIRONMENT_NAME.fullmatch(value):
        raise ValueError("is not the name of an environment variable")
    if (instead := _OWN_VARIABLES.get(value)) is not None:
        raise ValueError(f"is set by failsoft: {instead}")
    return value


def _memory_share(value: float) -> float:
    if not 0 < value <= 1:
        raise ValueError("has to be over 0 and at most 1: it is the share of the GPU's memory that vLLM takes")
    return value


def _one_line(value: str) -> str:
    if "\0" in value or "\n" in value:
        raise ValueError("may not hold a line break")
    return value


def _no_literal_secret(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if _SECRET_WORDS & set(name.upper().split("_")) and not _REFERENCE.fullmatch(value):
            raise ValueError(f"has a literal value for {name}: write a reference such as ${{{name}}}")
    return env


def _no_resolver(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if turns_on(name, value) or (name == PLUGINS and _REFERENCE.fullmatch(value)):
            raise ValueError(
                f"turns on a LoRA resolver of vLLM's by {name}, or may: it would load what any request names as its "
                "model, `../outside` too; adapters are loaded as policies name them"
            )
    return env


Argument = Annotated[Text, AfterValidator(_one_line)]


class EngineOptions(Keys):
    """vLLM's settings that nothing else in fleet.yaml says. What is left out is vLLM's own default, unless said."""

    gpu_memory_utilization: Annotated[float, AfterValidator(_memory_share)] | None = None
    """The share of the GPU's memory for weights, adapters and KV cache."""
    max_model_len: Count | None = None
    """The longest prompt with its answer, in tokens."""
    max_num_seqs: Count | None = None
    """Requests in one batch."""
    max_queued_requests: Count | None = None
    """Requests, running and waiting, past which the box says 503. Four times max_num_seqs, where that is set."""
    max_queued_tokens: Count | None = None
    """Prompt tokens that may wait before the box says 503."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    """GPUs of one box that share the model."""
    dtype: Literal["auto", "bfloat16", "float16", "float32", "half", "float"] | None = None
    """The type of weights and activations."""
    tool_call_parser: Annotated[Text, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    """Which of vLLM's parsers reads tool calls, such as llama3_json; without one, requests with tools get a 400."""
    chat_template: Text | None = None
    """A file on the box, where the tokenizer's own template is not the right one."""
    register_adapters: bool = True
    """Load the adapters that policies name when the box starts. False leaves them all to runtime loading."""
    runtime_loading: bool = True
    """Let adapters be loaded and unloaded while the box serves."""
    reload_room: Annotated[int, Field(ge=0, le=65536)] | None = None
    """Places in main memory for new versions of adapters beside the old ones; half of the adapters, at least 8."""
    drain: Duration = 30.0
    """How long running requests may go on after SIGTERM. 30s."""
    listen: Annotated[Text, Field(pattern=r"^[^/\s]+$")] | None = None
    """Where vLLM listens, if not at the url's address: an IP address such as 0.0.0.0, with :PORT if that differs."""
    env: Annotated[
        dict[Annotated[str, AfterValidator(_environment_name)], Argument],
        AfterValidator(_no_literal_secret),
        AfterValidator(_no_resolver),
    ] = Field(default_factory=dict)
    """More environment variables; a secret only as a reference such as ${HF_TOKEN}."""
    extra: list[Argument] = Field(default_factory=list)
    """More of vLLM's own flags and their values, checked against the version that is to run."""


def merged(fleet: EngineOptions | None, box: EngineOptions | None) -> EngineOptions:
    """The fleet's options with the box's in place of those that it sets; whole keys replace whole keys."""
    if fleet is None or box is None:
        return box or fleet or EngineOptions()
    return fleet.model_copy(update={key: getattr(box, key) for key in box.model_fields_set})
