"""What one vLLM server is to serve, and the command line and environment that make it do so. Pure."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from backend.vllm_flags import Release
from gateway.policy.engine_options import EngineOptions
from gateway.policy.names import REFERENCE_PATTERN, referenced

RUNTIME_LOADING: Final = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
API_KEY: Final = "VLLM_API_KEY"
_SILENT: Final = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
_REFERENCE: Final = re.compile(REFERENCE_PATTERN)
_QUIET_PATHS: Final = "/health,/metrics"
"""Asked every second or two by each gateway, and of no interest in a log."""

Group = tuple[str, ...]
"""A flag with its values."""


@dataclass(frozen=True, slots=True)
class ServePlan:
    """One vLLM server. ``adapters``: paths by name, loaded at start. ``max_loras`` 0: no adapters at all.

    ``api_key``: a reference such as ``${BOX_KEY}``. ``max_queued_requests``: running and waiting, none for no limit.
    ``drain_s`` 0: SIGTERM ends what runs.
    """

    model: str
    served_name: str
    host: str
    port: int
    adapters: Mapping[str, str] = field(default_factory=dict)
    max_loras: int = 0
    max_cpu_loras: int = 0
    max_lora_rank: int = 16
    api_key: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    max_queued_requests: int | None = None
    drain_s: float = 0.0


@dataclass(frozen=True, slots=True)
class VllmCommand:
    """A program with its arguments, and the variables to set beside those that are inherited."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def flags(plan: ServePlan, release: Release) -> tuple[Group, ...]:
    """All of ``vllm serve``'s flags but the model, each with its values, ``extra`` last so that it wins.

    A flag that only makes the box better known or better behaved is left out where the release has not got it.
    """
    options = plan.options
    found: list[Group] = [("--served-model-name", plan.served_name), ("--host", plan.host), ("--port", str(plan.port))]

    def add(flag: str, value: object, *, always: bool = True) -> None:
        if value is not None and (always or release.find(flag) is not None):
            found.append((flag, str(value)))

    add("--max-model-len", options.max_model_len)
    add("--max-num-seqs", options.max_num_seqs)
    add("--max-num-queued-reqs", plan.max_queued_requests, always=False)
    add("--max-num-queued-tokens", options.max_queued_tokens, always=False)
    add("--gpu-memory-utilization", options.gpu_memory_utilization)
    add("--tensor-parallel-size", options.tensor_parallel_size)
    add("--dtype", options.dtype)
    if options.tool_call_parser is not None:
        found += [("--enable-auto-tool-choice",), ("--tool-call-parser", options.tool_call_parser)]
    add("--chat-template", options.chat_template)
    if plan.max_loras:
        found += [("--enable-lora",), ("--max-loras", str(plan.max_loras))]
        found += [("--max-cpu-loras", str(plan.max_cpu_loras)), ("--max-lora-rank", str(plan.max_lora_rank))]
    if plan.adapters:
        found.append(("--lora-modules", *(_module(name, path) for name, path in plan.adapters.items())))
    if release.find("--enable-server-load-tracking") is not None:
        found.append(("--enable-server-load-tracking",))
    if release.find("--disable-log-requests") is not None:
        found.append(("--disable-log-requests",))  # it would log every prompt
    add("--disable-access-log-for-endpoints", _QUIET_PATHS, always=False)
    add("--shutdown-timeout", math.ceil(plan.drain_s) or None, always=False)
    return (*found, *grouped(options.extra))


def _module(name: str, path: str) -> str:
    """``name=path``; vLLM splits at the first ``=``, and takes what holds a comma for JSON."""
    if "=" in name or "," in name + path:
        return json.dumps({"name": name, "path": path})
    return f"{name}={path}"


def grouped(arguments: Iterable[str]) -> tuple[Group, ...]:
    """Flags with the values that follow each; a negative number is a value. What comes before all flags is first."""
    found: list[list[str]] = []
    for argument in arguments:
        if found and not is_flag(argument):
            found[-1].append(argument)
        else:
            found.append([argument])
    return tuple(tuple(group) for group in found)


def is_flag(argument: str) -> bool:
    """``--max-loras`` and ``-tp``, but not ``-1``."""
    return re.match(r"--[A-Za-z]|-[A-Za-z]", argument) is not None


def environment(plan: ServePlan) -> dict[str, str]:
    """Variables for the server. References such as ``${BOX_KEY}`` are left as they are."""
    found = dict(_SILENT)
    if plan.model.startswith("/"):
        found["HF_HUB_OFFLINE"] = "1"  # nothing is to be had there that a box should depend on
    if plan.options.runtime_loading and plan.max_loras:
        found[RUNTIME_LOADING] = "1"
    found |= plan.options.env
    if plan.api_key is not None:
        found[API_KEY] = plan.api_key  # not a flag, which every user of the machine and vLLM's log would show
    return found


def by_program(program: str, plan: ServePlan, release: Release) -> VllmCommand:
    """``vllm serve MODEL …``"""
    rest = (argument for group in flags(plan, release) for argument in group)
    return VllmCommand((program, "serve", plan.model, *rest), environment(plan))


def by_interpreter(python: str, plan: ServePlan, release: Release) -> VllmCommand:
    """``python -m …``, which works under builds whose distribution is not called ``vllm``, as the one for CPUs."""
    rest = (argument for group in flags(plan, release) for argument in group)
    arguments = (python, "-m", "vllm.entrypoints.openai.api_server", "--model", plan.model, *rest)
    # The folder that we happen to be in may hold modules of vLLM's names.
    return VllmCommand(arguments, {"PYTHONSAFEPATH": "1", **environment(plan)})


def unresolved(values: Mapping[str, str], env: Mapping[str, str]) -> list[str]:
    """The variables that references among ``values`` name and ``env`` has not got."""
    names = {referenced(value) for value in values.values() if _REFERENCE.fullmatch(value)}
    return sorted(name for name in names if not env.get(name))


def resolved(values: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """``values`` with references replaced. Raises KeyError where ``unresolved`` is not empty."""
    return {name: env[referenced(v)] if _REFERENCE.fullmatch(v) else v for name, v in values.items()}


def shell_text(command: VllmCommand) -> str:
    """The command for people to read and to paste: a variable or a flag a line. References are the shell's."""
    first = 3 if command.arguments[1:2] == ("serve",) else 5
    lines = [f"{name}={_shell_value(value)}" for name, value in command.environment.items()]
    lines.append(shlex.join(command.arguments[:first]))
    lines += ["  " + _shell_group(group) for group in grouped(command.arguments[first:])]
    return " \\\n".join(lines) + "\n"


def _shell_value(value: str) -> str:
    if _REFERENCE.fullmatch(value):
        return f'"${{{referenced(value)}:?}}"'  # the shell stops where it is not set
    return shlex.quote(value)


def _shell_group(group: Sequence[str]) -> str:
    return (" \\\n    " if len(group) > 3 else " ").join(shlex.quote(argument) for argument in group)
