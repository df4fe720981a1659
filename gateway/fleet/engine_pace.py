"""How fast a box's engine has been of late: pure, from the readings of its metrics.

A rate of first tokens says what a box *can* do only while something waits; the rest of the time it says how much it was
asked. So that rate is taken from the intervals between two readings that both show requests waiting for capacity, and
from no others: those that wait for a LoRA slot wait for others to end, however fast first tokens come.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from gateway.fleet.engine_metrics import EngineReading

WINDOW_S = 10.0
"""How far back rates look: ten readings, so that a handful of requests is not taken for a rate."""

MAX_READINGS = 64

LEAST_APART_S = 0.01
"""Two readings closer than this are one: what happened between them is no rate."""


@dataclass(frozen=True, slots=True)
class EnginePace:
    """Rates over at most the last ``WINDOW_S``; None where the readings do not tell.

    ``first_tokens_per_s``: while requests waited for capacity. ``finishes_per_s``: while requests ran. Where nothing
    came in the time looked at, both are one over that time: slower than that it has been, how much slower nobody
    knows. ``duration_s``: from a request's start to its end, by Little's law. ``ttft_s``: the engine's own mean.
    ``stalled_s``: for how long it has had work and has neither read nor written a token; 0 where it has not.
    """

    first_tokens_per_s: float | None = None
    finishes_per_s: float | None = None
    preemptions_per_s: float | None = None
    duration_s: float | None = None
    ttft_s: float | None = None
    stalled_s: float = 0.0


class EngineHistory:
    """The last readings of one box. ``latest`` is None until there is one."""

    def __init__(self) -> None:
        self.latest: EngineReading | None = None
        self.pace = EnginePace()
        self._readings: deque[EngineReading] = deque(maxlen=MAX_READINGS)
        self._stalled_since: float | None = None

    def add(self, reading: EngineReading) -> None:
        """Take a reading; one that is not at least ``LEAST_APART_S`` younger than the last is dropped."""
        last = self.latest
        if last is not None:
            if not reading.at_s - last.at_s >= LEAST_APART_S:
                return
            if _started_anew(last, reading):
                self._readings.clear()
                self._stalled_since = None
            elif not _stands_still(last, reading):
                self._stalled_since = None
            elif self._stalled_since is None:
                self._stalled_since = last.at_s
        readings = self._readings
        readings.append(reading)
        while len(readings) > 2 and readings[1].at_s <= reading.at_s - WINDOW_S:
            readings.popleft()
        self.latest = reading
        self.pace = self._pace()

    def _pace(self) -> EnginePace:
        first, last = self._readings[0], self._readings[-1]
        elapsed_s = last.at_s - first.at_s
        queued = [
            (a, b)
            for a, b in pairwise(self._readings)
            if (a.waiting_capacity or 0) > 0 and (b.waiting_capacity or 0) > 0
        ]
        busy = [(a, b) for a, b in pairwise(self._readings) if (a.running or 0) > 0]
        finished = _grown(first.requests_finished_total, last.requests_finished_total)
        answered = _grown(first.ttft_count, last.ttft_count)
        waited_s = _grown(first.ttft_sum_s, last.ttft_sum_s)
        preempted = _grown(first.preemptions_total, last.preemptions_total)
        request_s = math.fsum((a.running or 0) * (b.at_s - a.at_s) for a, b in busy)
        return EnginePace(
            first_tokens_per_s=_rate(queued, [_grown(a.ttft_count, b.ttft_count) for a, b in queued]),
            finishes_per_s=_rate(busy, [_grown(a.requests_finished_total, b.requests_finished_total) for a, b in busy]),
            preemptions_per_s=preempted / elapsed_s if preempted is not None and elapsed_s > 0 else None,
            duration_s=request_s / finished if finished and request_s > 0 else None,
            ttft_s=waited_s / answered if answered and waited_s is not None else None,
            stalled_s=0.0 if self._stalled_since is None else last.at_s - self._stalled_since,
        )


def _counters(reading: EngineReading) -> Iterator[float | None]:
    yield reading.prompt_tokens_total
    yield reading.generation_tokens_total
    yield reading.requests_finished_total
    yield reading.ttft_count


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0.0, after - before)


def _started_anew(before: EngineReading, after: EngineReading) -> bool:
    pairs = zip(_counters(before), _counters(after), strict=True)
    return any(a is not None and b is not None and b < a for a, b in pairs)


def _stands_still(before: EngineReading, after: EngineReading) -> bool:
    had_work = all((reading.running or 0) + (reading.waiting or 0) > 0 for reading in (before, after))
    known = after.prompt_tokens_total is not None or after.generation_tokens_total is not None
    return had_work and known and tuple(_counters(before)) == tuple(_counters(after))


def _rate(intervals: list[tuple[EngineReading, EngineReading]], counts: list[float | None]) -> float | None:
    known = [(count, b.at_s - a.at_s) for count, (a, b) in zip(counts, intervals, strict=True) if count is not None]
    if not known:
        return None
    return max(1.0, math.fsum(count for count, _ in known)) / math.fsum(span for _, span in known)
