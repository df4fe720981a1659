"""Whether a release of vLLM will take a command line, and whether what it says fits together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from backend.flag_values import refusal
from backend.objections import Objection
from backend.pool_size import room_for_reloads
from backend.serve_plan import Group, ServePlan, grouped, is_flag
from backend.vllm_flags import REPLACED, Flag, Release, canonical, parse_version
from gateway.policy.diagnostics import Severity, nearest
from gateway.policy.engine_options import EngineOptions

OWN: Final = {
    "--model": "model_path of the fleet",
    "--served-model-name": "base_model of the fleet",
    "--host": "the box's url, or engine.listen",
    "--port": "the box's url, or engine.listen",
    "--uds": "the box's url: gateways reach it by TCP",
    "--api-key": "the box's api_key, a reference",
    "--enable-lora": "max_loras of the box",
    "--max-loras": "max_loras of the box",
    "--max-cpu-loras": "max_cpu_loras of the box",
    "--max-lora-rank": "max_lora_rank of the fleet",
    "--lora-modules": "the customers' adapters, and adapter_root of the fleet",
    "--max-model-len": "engine.max_model_len",
    "--max-num-seqs": "engine.max_num_seqs",
    "--max-num-queued-reqs": "engine.max_queued_requests",
    "--max-num-queued-tokens": "engine.max_queued_tokens",
    "--gpu-memory-utilization": "engine.gpu_memory_utilization",
    "--tensor-parallel-size": "engine.tensor_parallel_size",
    "--dtype": "engine.dtype",
    "--tool-call-parser": "engine.tool_call_parser",
    "--enable-auto-tool-choice": "engine.tool_call_parser",
    "--chat-template": "engine.chat_template",
    "--shutdown-timeout": "engine.drain",
}
"""Flags that are written from something else in fleet.yaml, and from what."""
QUEUE_DEPTH: Final = 4
"""Times ``max_num_seqs``, where no ``max_queued_requests`` is written: one batch runs, three wait."""
PLUGINS: Final = {"--tool-call-parser": "--tool-parser-plugin", "--reasoning-parser": "--reasoning-parser-plugin"}
"""Flags that take names which a file may add, and the flag that names the file."""
NO_SERVER: Final = {
    "--headless": "starts no HTTP server",
    "--grpc": "serves gRPC, which gateways do not speak",
    "--tokens-only": "serves no chat",
}


def queue_limit(options: EngineOptions) -> int | None:
    """Running and waiting requests that a box takes in."""
    if options.max_queued_requests is None and options.max_num_seqs is not None:
        return QUEUE_DEPTH * options.max_num_seqs
    return options.max_queued_requests


def objections(plan: ServePlan, release: Release) -> Iterator[Objection]:
    """Everything that speaks against ``plan`` under ``release``."""
    if not release.known:
        yield Objection(
            f"vLLM {release.version}",
            f"is not among the releases whose flags are known here, and is taken for {release.like}",
            "flags that it may not have are only warned of",
            "warning",
        )
    yield from _slots(plan, release)
    yield from _batch(plan)
    for group in grouped(plan.options.extra):
        yield from _extra(group, release)
    yield from _values(plan, release)
    yield from _together(plan, release)


def _slots(plan: ServePlan, release: Release) -> Iterator[Objection]:
    adapters = len(plan.adapters)
    if not plan.max_loras:
        if adapters:
            yield Objection("adapters", "need slots to be served from", "set max_loras of the box")
        return
    if plan.max_lora_rank not in release.max_lora_ranks:
        ranks = ", ".join(map(str, release.max_lora_ranks))
        yield Objection("max_lora_rank", f"is {plan.max_lora_rank}, and vLLM {release.version} takes only {ranks}")
    if plan.max_cpu_loras < plan.max_loras:
        yield Objection(
            "max_cpu_loras",
            f"is {plan.max_cpu_loras}, less than max_loras ({plan.max_loras}), which vLLM refuses",
            "leave it out, and it is sized from the adapters",
        )
    seqs = plan.options.max_num_seqs
    if seqs is not None and seqs < plan.max_loras:
        yield Objection(
            "engine.max_num_seqs",
            f"is {seqs}, less than max_loras ({plan.max_loras}), so that slots could never all be used",
            f"make it {plan.max_loras} or more",
        )


def pool_objections(adapters: int, plan: ServePlan) -> Iterator[Objection]:
    """Whether the pool in main memory holds the fleet's ``adapters``, registered at start or later, and reloads."""
    room = room_for_reloads(adapters, plan.options.reload_room)
    if not plan.max_loras:
        return
    if plan.max_cpu_loras < adapters:
        yield Objection(
            "max_cpu_loras",
            f"is {plan.max_cpu_loras}, too few for the {adapters} adapters that policies name: one that is evicted is "
            "read from disk in the engine's step, and ends the engine if that fails",
            f"make it {adapters + room}, or leave it out",
        )
    elif plan.max_cpu_loras < adapters + room and plan.options.runtime_loading:
        yield Objection(
            "max_cpu_loras",
            f"is {plan.max_cpu_loras}, which holds {adapters} adapters and {plan.max_cpu_loras - adapters} reloads; "
            "an unloaded version stays until it is evicted",
            f"make it {adapters + room}, or leave it out",
            "warning",
        )


def _batch(plan: ServePlan) -> Iterator[Objection]:
    options = plan.options
    if options.gpu_memory_utilization is not None and not 0 < options.gpu_memory_utilization <= 1:
        yield Objection("engine.gpu_memory_utilization", "has to be over 0 and at most 1")
    queued, seqs = plan.max_queued_requests, options.max_num_seqs
    if queued is not None and seqs is not None and queued < seqs:
        yield Objection(
            "engine.max_queued_requests",
            f"is {queued}, less than max_num_seqs ({seqs}): running requests count, so that no batch could be full",
            f"{QUEUE_DEPTH * seqs} lets three batches wait",
        )
    if options.tool_call_parser is None:
        yield Objection(
            "engine.tool_call_parser",
            "is not set: vLLM answers requests with tools with a 400",
            "llama3_json is the one for Llama 3",
            "warning",
        )


def _extra(group: Group, release: Release) -> Iterator[Objection]:
    written, values = group[0], group[1:]
    name = canonical(written)
    if not is_flag(written):
        yield Objection("engine.extra", f"begins with {written}, which is no flag", "flags begin with --")
        return
    flag = release.find(written)
    if flag is None:
        yield _unknown(name, release)
        return
    if (source := OWN.get(flag.name)) is not None:
        yield Objection(name, "is not for engine.extra", f"it is written from {source}")
        return
    if (why := NO_SERVER.get(flag.name)) is not None:
        yield Objection(name, why, "take it out of engine.extra")
    if flag.name == "--config":
        yield Objection(name, "brings in flags that are not checked here", "write them in engine.extra", "warning")
    has_value = bool(values) or "=" in written or (written.startswith("-O") and len(written) > 2)
    if flag.kind == "value" and not has_value:
        yield Objection(name, "needs a value", "write it as the next entry of engine.extra")
    if flag.kind in ("switch", "toggle") and has_value:
        yield Objection(name, "takes no value", "leave out what follows it")


def _values(plan: ServePlan, release: Release) -> Iterator[Objection]:
    """Values that the release would not take, as far as its source was read for that."""
    options = plan.options
    groups = grouped(options.extra)
    written = {_name(group, release) for group in groups}
    # What is in somebody's plugin is not known here. `--tool-parser-plugin` brings tool parsers, and so for the other.
    plugins = [flag for flag, plugin in PLUGINS.items() if plugin in written]
    given = [(name, name, _text(group)) for group in groups if (name := _name(group, release)) not in OWN]
    given.append(("engine.tool_call_parser", "--tool-call-parser", options.tool_call_parser))
    for about, name, value in given:
        flag = release.find(name)
        values = release.values(flag) if flag is not None else None
        if value is None or values is None or name in plugins:
            continue
        if (refused := refusal(value, values)) is not None:
            sure = release.known and not (name in PLUGINS and "VLLM_PLUGINS" in options.env)
            yield Objection(about, *refused, "error" if sure else "warning")


def _unknown(name: str, release: Release) -> Objection:
    severity: Severity = "error" if release.known else "warning"
    elsewhere = release.elsewhere(name)
    if elsewhere is None and name not in REPLACED:
        near = nearest(name, [known for flag in release.flags for known in flag.names])
        return Objection(
            name,
            f"is not a flag of vLLM {release.version}",
            f"did you mean {near}?" if near else "take it out of engine.extra",
            severity,
        )
    return Objection(name, *_when(name, elsewhere, release), severity)


def _when(name: str, elsewhere: Flag | None, release: Release) -> tuple[str, str]:
    hint = REPLACED.get(name, "take it out of engine.extra; nothing is known to have taken its place")
    if elsewhere is None:
        return f"is not a flag of vLLM {release.version} any more", hint
    have, first, last = parse_version(release.like), elsewhere.versions[0], elsewhere.versions[-1]
    if parse_version(first) > have:
        return f"came with vLLM {first}, and this is {release.version}", "take it out, or run a newer vLLM"
    return f"is gone: vLLM {last} was the last known here to have it, and this is {release.version}", hint


def _together(plan: ServePlan, release: Release) -> Iterator[Objection]:
    """What single flags do not show."""
    options = plan.options
    written = {_name(group, release): group for group in grouped(options.extra)}
    servers, so_written = _api_servers(written), "--api-server-count" in written
    if plan.max_loras and options.runtime_loading and servers > 1:
        yield Objection(
            "--api-server-count",
            f"{'is' if so_written else 'would be'} {servers}"
            + ("" if so_written else ", as many as data parallel ranks here")
            + ", and vLLM loads adapters at run time only with one API server",
            f"{'make it' if so_written else 'write --api-server-count'} 1, or set engine.runtime_loading: false",
        )
    if options.runtime_loading and not plan.max_loras:
        yield Objection("engine.runtime_loading", "needs max_loras: there is no slot to load into", "", "warning")
    batched = _number(written.get("--max-num-batched-tokens"))
    seqs = options.max_num_seqs
    if batched is not None and seqs is not None and batched < seqs:
        message = f"is {batched}, less than max_num_seqs ({seqs}), which vLLM refuses"
        yield Objection("--max-num-batched-tokens", message, f"make it {seqs} or more")
    for flag, key, value in (
        ("--max-num-queued-reqs", "engine.max_queued_requests", plan.max_queued_requests),
        ("--max-num-queued-tokens", "engine.max_queued_tokens", options.max_queued_tokens),
        ("--shutdown-timeout", "engine.drain", plan.drain_s or None),
    ):
        if value is not None and release.find(flag) is None:
            yield Objection(key, f"is not acted on: vLLM {release.version} has no {flag}", "", "warning")


def _api_servers(written: Mapping[str, Group]) -> int:
    """How many API servers there would be, by the rules of ``entrypoints/cli/serve.py``."""

    def on(flag: str) -> bool:
        return flag in written and not written[flag][0].startswith("--no-")

    explicit = _number(written.get("--api-server-count"))
    if on("--enable-elastic-ep"):
        return 1
    if explicit is not None:
        return explicit
    multi_port, hybrid = on("--data-parallel-multi-port-external-lb"), on("--data-parallel-hybrid-lb")
    if multi_port or on("--data-parallel-external-lb") or "--data-parallel-rank" in written:
        return 1  # the load balancer is another program, and each rank a server of its own
    if hybrid or "--data-parallel-start-rank" in written:
        return _number(written.get("--data-parallel-size-local")) or 1
    return _number(written.get("--data-parallel-size")) or 1


def _name(group: Group, release: Release) -> str:
    flag = release.find(group[0])
    return flag.name if flag is not None else canonical(group[0])


def _number(group: Group | None) -> int | None:
    if group is None:
        return None
    text = _text(group)
    return int(text) if text is not None and text.isdigit() else None


def _text(group: Group) -> str | None:
    """The one value that is written, if that is what follows; keys of JSON (``--flag.key``) are none."""
    flag, equals, value = group[0].partition("=")
    if "." in flag or len(group) > (1 if equals else 2):
        return None
    return value if equals else (group[1] if len(group) == 2 else None)
