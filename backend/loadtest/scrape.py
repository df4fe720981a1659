"""What the gateway's and the boxes' own counters say of the measured time: their ``/metrics`` before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx2
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 5.0
SWAPS = "failsoft_box_predicted_lora_swaps_total"
SLOTS = "failsoft_box_lora_slots_held"
TOKENS = "vllm:generation_tokens_total"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
PREEMPTIONS = "vllm:num_preemptions_total"
WANTED = (SWAPS, SLOTS, TOKENS, PROMPT_TOKENS, PREEMPTIONS)

Counters = Mapping[tuple[str, str], float]
"""By metric and by its ``box`` label, empty where it has none; sums over all other labels."""


def counters(page: str) -> Counters:
    """The wanted ones of a page in Prometheus' text format. Raises ValueError where they are not in it."""
    found: dict[tuple[str, str], float] = {}
    # Only their lines: the parser takes milliseconds for a whole page, in which no request would leave.
    lines = "\n".join(line for line in page.splitlines() if line.startswith(WANTED))
    for family in text_string_to_metric_families(lines + "\n"):
        for sample in family.samples:
            if sample.name in WANTED:
                key = (sample.name, sample.labels.get("box", ""))
                found[key] = found.get(key, 0.0) + sample.value
    return found


@dataclass(frozen=True, slots=True)
class Look:
    """All pages at one moment, by URL; ``failed``: those that could not be read, and why."""

    pages: Mapping[str, Counters] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def reader() -> httpx2.AsyncClient:
    """What looks are taken with: made once and before a run, as that takes long (it loads the roots of trust)."""
    return httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False)


async def look(client: httpx2.AsyncClient, urls: Iterable[str]) -> Look:
    """Read each URL's page, all at once. A page that cannot be read is told, and fails nothing."""
    wanted = list(urls)
    read = await asyncio.gather(*(_page(client, url) for url in wanted))
    pages = {url: page for url, page in zip(wanted, read, strict=True) if not isinstance(page, str)}
    failed = {url: page for url, page in zip(wanted, read, strict=True) if isinstance(page, str)}
    return Look(pages, failed)


async def _page(client: httpx2.AsyncClient, url: str) -> Counters | str:
    try:
        answer = await client.get(url)
        return counters(answer.text) if answer.status_code == 200 else f"status {answer.status_code}"
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        return f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class Counted:
    """Between two looks. ``swaps``: by box, as the gateway's model of the boxes has them (vLLM counts none itself), or
    None where the gateway's page could not be read. ``boxes``: the names that it knows. ``engines``: by the URL of a
    box's own page, its counters' growth.
    """

    swaps: Mapping[str, int] | None
    boxes: Sequence[str]
    engines: Mapping[str, Mapping[str, int]]
    failed: Mapping[str, str]


def between(before: Look, after: Look, gateway: str) -> Counted:
    """What happened from one look to the next. ``gateway``: the URL of its page among them."""
    failed = {**before.failed, **after.failed}
    pages = {url: (before.pages[url], page) for url, page in after.pages.items() if url in before.pages}
    swaps, boxes = None, set[str]()
    if gateway in pages:
        first, last = pages[gateway]
        boxes = {box for name, box in last if name in (SWAPS, SLOTS)}
        if boxes:  # else it is not a gateway's
            swaps = {box: _growth(first, last, SWAPS, box) for box in sorted(boxes)}
    engines = {
        url: {
            "output_tokens": _growth(first, last, TOKENS),
            "prompt_tokens": _growth(first, last, PROMPT_TOKENS),
            "preemptions": _growth(first, last, PREEMPTIONS),
        }
        for url, (first, last) in pages.items()
        if url != gateway
    }
    return Counted(swaps, sorted(boxes), engines, failed)


def _growth(first: Counters, last: Counters, name: str, box: str = "") -> int:
    now, then = last.get((name, box), 0.0), first.get((name, box), 0.0)
    return round(now - then if now >= then else now)  # a counter that fell has begun anew: its process was restarted
