"""The field report's table from what was measured. Pure: what was not has no figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bench.gpu.settings import Settings

Document = dict[str, Any]
NOTHING: Final = "–"
COLUMNS: Final = ("", "field report", "base alone", "multi-LoRA")
"""The field report: a team with 40 customers on two A100 80 GB, vLLM 0.6.3; "base alone" is 40 deployments there, and
one server without LoRA under the whole load here, which no deployment of one customer sees."""


def rows(settings: Settings, measured: Mapping[str, Document]) -> list[list[str]]:
    """As many cells each as there are columns."""
    shape = settings.model
    load, base = measured.get("load"), measured.get("base")
    shared, alone = _overall(load), _overall(base)
    boxes = settings.boxes
    slots = settings.max_loras * shape.slot_bytes(settings.max_lora_rank)
    resident = settings.adapters * shape.adapter_bytes(settings.rank)
    swap, disk, gateway = (measured.get(name, {}) for name in ("swap", "disk", "gateway"))
    tokens = "" if shared is None or shared["mean_output_tokens"] is None else f"{shared['mean_output_tokens']:.0f} "
    return [
        ["boxes", "2", str(boxes), str(boxes)],
        ["base weights in memory, reckoned", "2 copies", *[f"{boxes} × {_size(shape.base_bytes)}"] * 2],
        ["adapters in main memory, a box, reckoned", "about 1.7 GB", NOTHING, _size(resident)],
        [f"{settings.max_loras} slots of rank {settings.max_lora_rank}, reckoned", NOTHING, NOTHING, _size(slots)],
        ["model as loaded, with its slots, by vLLM", NOTHING, _bytes(base), _bytes(load)],
        ["KV cache, tokens a box, by vLLM", NOTHING, _cache(base), _cache(load)],
        [f"p50 latency, {tokens}tokens", "410 / 470 ms", *_both(alone, shared, "e2e_ms", "p50")],
        ["p99 latency", NOTHING, *_both(alone, shared, "e2e_ms", "p99")],
        ["p50 time to first token", NOTHING, *_both(alone, shared, "ttft_ms", "p50")],
        ["p99 time to first token", NOTHING, *_both(alone, shared, "ttft_ms", "p99")],
        ["p50 inter-token latency", NOTHING, *_both(alone, shared, "inter_token_ms", "p50", digits=1)],
        ["output tokens a second a box, at this load", "about 3,100", _rate(alone, boxes), _rate(shared, boxes)],
        ["answered whole, of requests", NOTHING, _answered(alone), _answered(shared)],
        ["multi-LoRA against base, p50 latency", "+15%", NOTHING, _change(alone, shared, "e2e_ms")],
        ["multi-LoRA against base, inter-token", NOTHING, NOTHING, _change(alone, shared, "inter_token_ms")],
        ["cold swap from the CPU pool", "30 to 50 ms", NOTHING, _added(swap.get("pool"))],
        ["cold swap from files in the page cache", NOTHING, NOTHING, _added(disk.get("page_cache"))],
        ["cold swap from the disk", "far worse", NOTHING, _added(disk.get("disk"))],
        ["the gateway adds to the first token", NOTHING, NOTHING, _added(gateway.get("first"))],
        [f"the gateway adds to {settings.single_tokens} tokens", NOTHING, NOTHING, _added(gateway.get("whole"))],
    ]


def notes(settings: Settings, measured: Mapping[str, Document]) -> list[str]:
    """What has to be known to read the table, and what to doubt of it."""
    found = [
        f"vLLM {settings.vllm} on a {settings.device.upper()}; {settings.shape} with random weights, "
        f"rank {settings.rank}; {settings.requests_per_minute:g} requests a minute over {settings.adapters} adapters "
        f"(Zipf {settings.zipf:g}) for {settings.seconds:g} s, {settings.input_tokens} tokens in, "
        f"{settings.output_tokens} out.",
        "Swaps and the gateway: differences of medians of single requests in turns; p10 to p90 of the pairs.",
        "Tokens a second are what this load asks for, as long as the boxes keep up; not the most that they could do.",
    ]
    if settings.device == "cpu":
        found.append("Measured on a CPU: it shows that all of it works, and says nothing of a GPU.")
    missing = [name for name in ("load", "swap", "gateway", "disk", "base") if name not in measured]
    if missing:
        found.append(f"Not measured with these settings yet: {', '.join(missing)} (--only SECTION).")
    for name in ("load", "base"):
        if name in measured:
            found += [f"{name}: {warning}." for warning in measured[name]["report"]["client"]["warnings"]]
    return found


def text(table: list[list[str]]) -> str:
    """In columns, for a terminal."""
    lines = [list(COLUMNS), *table]
    widths = [max(len(line[n]) for line in lines) for n in range(len(COLUMNS))]

    def written(line: list[str]) -> str:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([written(lines[0]), "  ".join("-" * width for width in widths), *map(written, table)])


def _overall(section: Document | None) -> Document | None:
    return None if section is None else section["report"]["overall"]


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _bytes(section: Document | None) -> str:
    count = None if section is None else section["memory"]["model_bytes"]
    return NOTHING if count is None else _size(count)


def _cache(section: Document | None) -> str:
    tokens = None if section is None else section["memory"]["kv_cache_tokens"]
    return NOTHING if tokens is None else f"{tokens:,.0f}"


def _ms(overall: Document | None, name: str, point: str, *, digits: int = 0) -> str:
    value = None if overall is None else overall[name][point]
    return NOTHING if value is None else f"{value:,.{digits}f} ms"


def _both(alone: Document | None, shared: Document | None, name: str, point: str, *, digits: int = 0) -> list[str]:
    return [_ms(one, name, point, digits=digits) for one in (alone, shared)]


def _rate(overall: Document | None, boxes: int) -> str:
    return NOTHING if overall is None else f"{overall['output_tokens_per_s'] / boxes:,.0f}"


def _answered(overall: Document | None) -> str:
    return NOTHING if overall is None else f"{overall['answered']} of {overall['requests']}"


def _added(added: Document | None) -> str:
    if added is None:
        return NOTHING
    return f"{added['p50']:+,.2f} ms ({added['p10']:,.2f} to {added['p90']:,.2f})"


def _change(before: Document | None, after: Document | None, name: str) -> str:
    first, last = (None if one is None else one[name]["p50"] for one in (before, after))
    return NOTHING if not first or last is None else f"{last / first - 1:+.0%}"
