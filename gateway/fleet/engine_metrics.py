"""What one look at a box's ``/metrics`` says: pure, the Prometheus text of vLLM 0.32 in, a frozen reading out.

Wanted names are looked for at line starts, the rest is not parsed: of the 641 lines of a real page some twenty
matter. On two shared cores a page of 54 KB as vLLM renders it costs 0.18 ms, where ``prometheus_client``'s parser
takes 8.6 ms, and one with only what is wanted (``SHORT_PATH``) 0.05 ms.

``vllm:lora_requests_info`` is left alone: its two lists are always the same, and an adapter that waits is not on them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import ProtocolError, TooLarge

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""A page starts with some 54 KB an engine, and ``lora_requests_info`` adds 300 bytes for each combination of adapters
that ever ran together, for as long as the box lives. One of this size holds the event loop up for some 12 ms."""

MAX_LINE_BYTES = 4096
"""A wanted line has a model's name and two short labels; a longer one is none of vLLM's."""

_RUNNING = b"vllm:num_requests_running"
_WAITING = b"vllm:num_requests_waiting"
_BY_REASON = b"vllm:num_requests_waiting_by_reason"
_KV_CACHE = b"vllm:kv_cache_usage_perc"
_PREEMPTIONS = b"vllm:num_preemptions_total"
_PROMPT_TOKENS = b"vllm:prompt_tokens_total"
_GENERATION_TOKENS = b"vllm:generation_tokens_total"
_FINISHED = b"vllm:request_success_total"
_TTFT_SUM = b"vllm:time_to_first_token_seconds_sum"
_TTFT_COUNT = b"vllm:time_to_first_token_seconds_count"
_SLEEP = b"vllm:engine_sleep_state"
_WANTED = (
    _RUNNING,
    _WAITING,
    _BY_REASON,
    _KV_CACHE,
    _PREEMPTIONS,
    _PROMPT_TOKENS,
    _GENERATION_TOKENS,
    _FINISHED,
    _TTFT_SUM,
    _TTFT_COUNT,
    _SLEEP,
)

PATH = "/metrics"

SHORT_PATH = "/metrics/?" + "&".join(f"name%5B%5D={name.decode()}" for name in _WANTED)
"""The same, with only what is wanted: ``prometheus_client``'s own ASGI application, which vLLM mounts behind the slash,
takes names to render (read off vLLM 0.32, and seen to work there). It spares the box too: a page with 5,000 series of
``lora_requests_info`` is 1.5 MB and took it 57 ms to render, this one 2.6 ms."""

_LABEL = re.compile(rb'([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class EngineReading:
    """One box at one moment. What the page does not have is None, which is not zero.

    ``at_s``: when the page was asked for, on the event loop's clock. Gauges and counters are sums over the engines of
    a box (data parallelism); ``kv_cache_usage``, from 0 to 1, is that of the fullest. ``waiting_capacity`` wait for
    room in the batch or the KV cache; ``waiting_deferred`` for a LoRA slot, or for something else that is their own
    affair. ``requests_finished_total`` counts every end, an abort too. ``ttft_sum_s`` and ``ttft_count`` are those of
    vLLM's histogram since it started. ``asleep``: some engine of it sleeps, so that it takes requests and answers
    none.
    """

    at_s: float
    running: float | None = None
    waiting_capacity: float | None = None
    waiting_deferred: float | None = None
    kv_cache_usage: float | None = None
    preemptions_total: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    requests_finished_total: float | None = None
    ttft_sum_s: float | None = None
    ttft_count: float | None = None
    asleep: bool = False

    @property
    def waiting(self) -> float | None:
        """All that wait, for whatever reason."""
        if self.waiting_capacity is None and self.waiting_deferred is None:
            return None
        return (self.waiting_capacity or 0.0) + (self.waiting_deferred or 0.0)


def parse(page: bytes, at_s: float) -> EngineReading:
    """Read a page that was asked for at ``at_s``.

    :raises TooLarge: it is longer than ``MAX_PAGE_BYTES``.
    :raises ProtocolError: nothing on it is vLLM's.
    """
    if len(page) > MAX_PAGE_BYTES:
        raise TooLarge(f"a metrics page of more than {MAX_PAGE_BYTES} bytes")
    page = b"\n" + page
    by_reason = list(_series(page, _BY_REASON))
    deferred = [value for labels, value in by_reason if _label(labels, b"reason") == b"deferred"]
    # A reason that a later vLLM may add counts as capacity: that is the one which concerns everybody.
    capacity = [value for labels, value in by_reason if _label(labels, b"reason") != b"deferred"]
    if not by_reason:
        # Before 0.32 there is only the sum.
        capacity = [value for _, value in _series(page, _WAITING)]
    sleep = [(_label(labels, b"sleep_state"), value) for labels, value in _series(page, _SLEEP)]
    fullest = max((value for _, value in _series(page, _KV_CACHE)), default=None)
    reading = EngineReading(
        at_s,
        running=_total(page, _RUNNING),
        waiting_capacity=_sum(capacity),
        waiting_deferred=_sum(deferred),
        kv_cache_usage=None if fullest is None else min(1.0, fullest),
        preemptions_total=_total(page, _PREEMPTIONS),
        prompt_tokens_total=_total(page, _PROMPT_TOKENS),
        generation_tokens_total=_total(page, _GENERATION_TOKENS),
        requests_finished_total=_total(page, _FINISHED),
        ttft_sum_s=_total(page, _TTFT_SUM),
        ttft_count=_total(page, _TTFT_COUNT),
        asleep=any(state is not None and (value > 0) != (state == b"awake") for state, value in sleep),
    )
    if reading == EngineReading(at_s) and not sleep:
        raise ProtocolError("a metrics page without anything of vLLM's")
    return reading


def _series(page: bytes, name: bytes) -> Iterator[tuple[bytes, float]]:
    """Labels and value of each series of ``name`` whose value is a number of at least zero."""
    start = b"\n" + name
    at = page.find(start)
    while at >= 0:
        rest = at + len(start)
        end = page.find(b"\n", rest)
        if end < 0:
            end = len(page)
        # Behind the name: labels or a blank, or it is another name that begins alike.
        if rest < end <= rest + MAX_LINE_BYTES and page[rest] in b"{ \t":
            labels, brace, value = page[rest:end].rpartition(b"}")
            fields = value.split()
            # A time stamp may follow the value.
            if 1 <= len(fields) <= 2 and (brace or page[rest] != 0x7B):
                number = _number(fields[0])
                if number is not None:
                    yield labels, number
        at = page.find(start, end)


def _number(text: bytes) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _label(labels: bytes, name: bytes) -> bytes | None:
    return next((match[2] for match in _LABEL.finditer(labels) if match[1] == name), None)


def _total(page: bytes, name: bytes) -> float | None:
    return _sum([value for _, value in _series(page, name)])


def _sum(values: list[float]) -> float | None:
    total = math.fsum(values) if values and max(values) < 1e300 else None
    return total if total is not None and math.isfinite(total) else None
