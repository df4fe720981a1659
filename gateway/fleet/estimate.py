"""The time to first token that one request would see at one box: a pure function of what is known of the box.

It is a sum of what has to happen first: those before it get their first token (their number over the rate of first
tokens: J. D. C. Little, *A Proof for the Queuing Formula L = λW*, 1961), a LoRA slot comes free, the adapter is
loaded, and then what a first token takes on an idle box. What the box has just shown, and how long its engine has
been standing still, are lower bounds of it. Every number that took part is named in ``parts``.

The size of the prompt has no part in it: what a box reads in a second is only seen when it is asked to, and a rate seen
under light load would send every long prompt away without ever learning better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.engine_pace import EnginePace
from gateway.fleet.ttft import LONGEST_S, Ttft

STALE_S = 3.0
"""A reading older than this is not known any more: at one a second two in a row have failed."""

KV_FULL = 0.95
"""From here on a request that waits does so for KV blocks, which come free as others finish. vLLM preempts at 1.0;
the last twentieth of an A100 of 40 GB under an 8B model is some 7,000 tokens (128 KiB each in bf16): a few long
prompts."""

ASSUMED_DURATION_S = 3.0
"""A request from start to end where nothing was seen yet: 100 to 400 tokens (design, "Who uses it") at 100 a second."""

ASSUMED_STEP_S = 0.05
"""What one request before one's own adds where nothing was seen yet: a prompt of 500 tokens at 10,000 a second."""

ASSUMED_LOAD_S = 0.05
"""Of an adapter that is not resident: 42 MB (design) from disk at about 1 GB/s; from the CPU pool it is a tenth."""

MOST_IN_FLIGHT = 5
"""For one adapter, in the formula of a busy period: that many give 29 durations, and more would only be more of too
late."""

NO_PACE = EnginePace()


@dataclass(frozen=True, slots=True)
class OwnLoad:
    """What the gateway itself has in flight at a box, this request not counted.

    ``silent``: sent, and no content yet. ``silent_since_reading``: those of them that were sent after the reading's
    ``at_s``, so that it cannot have counted them. ``in_flight``: all that has not ended, by adapter; the base's is left
    out, as it takes no slot.
    """

    silent: int
    silent_since_reading: int
    in_flight: Mapping[str, int]
    max_loras: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """``ttft_s`` is finite and at least 0, or None: nothing speaks for or against, so the box may be asked.

    ``parts``: the numbers that it was made of, by name; those in seconds end in ``_s``. For people.
    """

    ttft_s: float | None
    parts: tuple[tuple[str, float], ...]


def estimate(
    adapter: str | None,
    *,
    resident: bool,
    own: OwnLoad,
    ttft: Ttft,
    reading: EngineReading | None,
    pace: EnginePace,
    now: float,
    stale_s: float = STALE_S,
) -> Estimate:
    """What a request for ``adapter`` (None: for the base) would see if it were sent at ``now``.

    ``resident``: the adapter is believed to be in the box's memory. ``reading`` and ``pace`` are the latest of its
    :class:`~gateway.fleet.engine_pace.EngineHistory`; older than ``stale_s`` they are as if there were none. Never
    lower for more waiting requests, more of the gateway's own, a fuller cache or a slower pace.
    """
    parts: dict[str, float] = {}
    if reading is not None:
        parts["reading_age_s"] = max(0.0, now - reading.at_s)
        if now - reading.at_s > stale_s:
            reading = None
        elif reading.asleep:
            parts["asleep"] = 1.0
            return _estimate(LONGEST_S, parts)
    if reading is None:
        pace = NO_PACE
    needs_slot = adapter is not None and not _holds_slot(adapter, own)

    parts["silent"] = own.silent
    # What others cost that are silent has to have been seen: a first burst is not turned away on a guess.
    parts["per_silent_s"] = ttft.per_silent_s or 0.0
    ahead_s = own.silent * parts["per_silent_s"]
    if reading is not None:
        ahead_s = max(ahead_s, _queue_s(reading, pace, own, _step_s(ttft), parts, needs_slot=needs_slot))
    parts["ahead_s"] = ahead_s
    total_s = ahead_s
    if needs_slot:
        total_s += _slot_s(adapter, own, pace, parts)
    base_s = _base_s(ttft, reading, pace)
    if base_s is None and total_s == 0 and pace.stalled_s == 0:
        return _estimate(None, parts)
    if needs_slot and not resident:
        parts["load_s"] = ASSUMED_LOAD_S
        total_s += ASSUMED_LOAD_S
    if base_s is not None:
        parts["base_s"] = base_s
        total_s += base_s
    if ttft.recent_s is not None:
        parts["recent_s"] = ttft.recent_s
        total_s = max(total_s, ttft.recent_s)
    if pace.stalled_s > 0:
        parts["stalled_s"] = pace.stalled_s
        total_s = max(total_s, pace.stalled_s)
    return _estimate(total_s, parts)


def _base_s(ttft: Ttft, reading: EngineReading | None, pace: EnginePace) -> float | None:
    """On an idle box: what the gateway has seen at best, else the engine's own mean, which has queueing in it."""
    if ttft.floor_s is not None:
        return ttft.floor_s
    if pace.ttft_s is not None:
        return pace.ttft_s
    if reading is not None and reading.ttft_count and reading.ttft_sum_s is not None:
        return reading.ttft_sum_s / reading.ttft_count
    return None


def _step_s(ttft: Ttft) -> float:
    """What one that waits in the engine adds: as learned, else as much as one alone takes; never more than either."""
    if ttft.recent_s is None:
        return ASSUMED_STEP_S
    return ttft.recent_s if ttft.per_silent_s is None else min(ttft.per_silent_s, ttft.recent_s)


def _queue_s(
    reading: EngineReading, pace: EnginePace, own: OwnLoad, step_s: float, parts: dict[str, float], *, needs_slot: bool
) -> float:
    """What stands in the engine's queue, by the rates at which it has been leaving it.

    What was sent since the reading stands behind it. Where there is none, it goes by what silent requests add.
    """
    waiting = reading.waiting_capacity or 0.0
    # Those that wait for a LoRA slot are overtaken by whoever needs none (scheduler of vLLM 0.32).
    deferred = (reading.waiting_deferred or 0.0) if needs_slot else 0.0
    usage = reading.kv_cache_usage or 0.0
    parts["waiting"] = waiting
    parts["deferred"] = deferred
    parts["kv_cache_usage"] = usage
    preempting = pace.preemptions_per_s is not None and pace.preemptions_per_s > 0
    if not (waiting or deferred or preempting):
        return 0.0
    sent = min(own.silent_since_reading, own.silent)
    first_s = step_s if pace.first_tokens_per_s is None else 1.0 / pace.first_tokens_per_s
    finish_s = _finish_s(reading, pace)
    slower_s = max(first_s, finish_s)
    parts["sent_since_reading"] = sent
    parts["first_token_each_s"] = first_s
    parts["finish_each_s"] = finish_s
    if preempting or usage >= KV_FULL:
        # Nobody gets in before somebody ends, and that holds for the request in question as well.
        parts["capacity_bound"] = 1.0
        return (waiting + sent + deferred + 1) * slower_s
    queue_s = (waiting + sent) * first_s if waiting else 0.0
    return queue_s + deferred * slower_s


def _finish_s(reading: EngineReading, pace: EnginePace) -> float:
    """From one end of a request to the next."""
    if pace.finishes_per_s is not None:
        return 1.0 / pace.finishes_per_s
    return (pace.duration_s or ASSUMED_DURATION_S) / max(1.0, reading.running or 0.0)


def _holds_slot(adapter: str, own: OwnLoad) -> bool:
    count = own.in_flight.get(adapter, 0)
    # Where there are more adapters than slots, those with the most in flight are the likeliest to hold one.
    return count > 0 and sum(other > count for other in own.in_flight.values()) < own.max_loras


def _slot_s(adapter: str | None, own: OwnLoad, pace: EnginePace, parts: dict[str, float]) -> float:
    """Until a LoRA slot comes free, where the gateway's own adapters hold all of them.

    An adapter keeps its slot for as long as any request for it runs, and nobody ages in the queue. So what counts is
    how long adapters stay busy: of an M/G/∞ queue with a mean of n in service and a mean duration of d that is d·(eⁿ
    - 1)/n (L. Takács, *Introduction to the Theory of Queues*, 1962), and the first of several comes free at the sum
    of their rates. Two adapters with three continuous flows each give 3.2 durations; a third one beside them was seen
    to wait 14.8 s.
    """
    counts = sorted((count for name, count in own.in_flight.items() if count > 0 and name != adapter), reverse=True)
    parts["adapters_in_flight"] = len(counts)
    slots = max(1, own.max_loras)
    if len(counts) < slots:
        return 0.0
    duration_s = min(LONGEST_S, pace.duration_s or ASSUMED_DURATION_S)
    parts["duration_s"] = duration_s
    held = [min(count, MOST_IN_FLIGHT) for count in counts[:slots]]
    frees_per_s = math.fsum(count / (duration_s * math.expm1(count)) for count in held)
    # Adapters beyond the slots wait already, and go first.
    slot_s = min(LONGEST_S, (1 + len(counts) - slots) / frees_per_s)
    parts["slot_s"] = slot_s
    return slot_s


def _estimate(ttft_s: float | None, parts: dict[str, float]) -> Estimate:
    bounded = None if ttft_s is None else min(LONGEST_S, max(0.0, ttft_s))
    return Estimate(bounded, tuple(parts.items()))
