"""From samples to the report: pure, and the JSON document that is kept, compared and drawn."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.loadtest.budget import Budgets
from backend.loadtest.generator import Run
from backend.loadtest.sample import Sample
from backend.loadtest.scrape import Counted
from backend.loadtest.statistics import Distribution, quantile

FORMAT = 1
LATE_S = 0.01
"""A client whose p99 is later than this was too slow, or its machine was: its figures say more of it than of the
server."""
CPU_SHARE = 0.85
"""Of the one core that it has; beyond this an event loop's own queue shows in every figure."""
CURVE = 200
"""Points of a distribution that are kept for drawing."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured, in seconds of the run: requests due from ``begin_s`` on; until the last of their answers or
    ``end_s``, whichever is later."""

    begin_s: float
    end_s: float


def report(run: Run, window: Window, budgets: Budgets, counted: Counted, about: Document) -> Document:
    """Everything. ``about``: what was run, as it is to stand in the document."""
    samples = [sample for sample in run.samples if sample.arrival.at_s >= window.begin_s]
    elapsed_s = max([window.end_s, *(sample.end_s for sample in samples)]) - window.begin_s
    customers = _grouped(samples, lambda sample: sample.arrival.customer)
    return {
        "format": FORMAT,
        "run": {
            **about,
            "measured_s": round(elapsed_s, 3),
            "warm_up_requests": len(run.samples) - len(samples),
            "unsent": run.unsent,
            "interrupted": run.interrupted,
        },
        "client": client(run, samples),
        "overall": summary(samples, budgets, elapsed_s),
        "customers": {
            name: summary(some, budgets, elapsed_s)
            for name, some in sorted(customers.items(), key=lambda item: -len(item[1]))
        },
        "targets": _targets(samples, elapsed_s),
        "degraded": _shares(Counter(s.degraded for s in samples if s.degraded and s.error is None), len(samples)),
        "errors": _shares(Counter(s.error for s in samples if s.error is not None), len(samples)),
        "swaps": None if counted.swaps is None else swaps(counted.swaps, elapsed_s),
        "boxes": list(counted.boxes),
        "engines": {url: dict(values) for url, values in counted.engines.items()},
        "unread": dict(counted.failed),
        "curves": {
            "ttft_ms": curve(sample.ttft_s for sample in samples if sample.error is None),
            "e2e_ms": curve(sample.e2e_s for sample in samples if sample.error is None),
        },
        "seconds": seconds(samples, window),
    }


def columns(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """Every request, those of the warm-up too, a list a field. Times in seconds of the run; null where none is."""
    rounded = {
        name: [None if (value := getattr(one, name)) is None else round(value, 6) for one in samples]
        for name in ("sent_s", "first_s", "last_s", "end_s")
    }
    return {
        "at_s": [round(one.arrival.at_s, 6) for one in samples],
        "customer": [one.arrival.customer for one in samples],
        "model": [one.arrival.model for one in samples],
        "streamed": [one.arrival.streamed for one in samples],
        "prompt_tokens": [one.prompt_tokens or one.arrival.prompt_tokens for one in samples],
        "output_tokens": [one.output_tokens for one in samples],
        "served_by": [one.served_by for one in samples],
        "degraded": [one.degraded for one in samples],
        "error": [one.error for one in samples],
        **rounded,
    }


def summary(samples: Sequence[Sample], budgets: Budgets, elapsed_s: float) -> Document:
    """Of some requests. Latencies are of whole answers, degraded ones too; goodput counts those that came in time."""
    whole = [sample for sample in samples if sample.error is None]
    kept = [sample for sample in whole if budgets.of(sample.arrival.customer).kept(sample)]
    own = [sample for sample in kept if sample.degraded is None]
    degraded = sum(sample.degraded is not None for sample in whole)
    output = sum(sample.output_tokens for sample in whole)
    return {
        "requests": len(samples),
        "answered": len(whole),
        "errors": len(samples) - len(whole),
        "degraded": degraded,
        "degraded_share": _share(degraded, len(samples)),
        "streamed": sum(sample.arrival.streamed for sample in samples),
        "models": len({sample.arrival.model for sample in samples}),
        "ttft_ms": Distribution.of_seconds(sample.ttft_s for sample in whole).document(),
        "inter_token_ms": Distribution.of_seconds(sample.inter_token_s for sample in whole).document(),
        "longest_gap_ms": Distribution.of_seconds(
            sample.longest_gap_s if sample.first_s is not None else None for sample in whole
        ).document(),
        "e2e_ms": Distribution.of_seconds(sample.e2e_s for sample in whole).document(),
        "prompt_tokens": sum(sample.prompt_tokens for sample in whole),
        "output_tokens": output,
        "mean_output_tokens": round(output / len(whole), 1) if whole else None,
        "output_tokens_per_s": round(output / elapsed_s, 2),
        "requests_per_s": round(len(samples) / elapsed_s, 3),
        "goodput": {
            "in_budget": len(kept),
            "share": _share(len(kept), len(samples)),
            "per_s": round(len(kept) / elapsed_s, 3),
            "own": len(own),
            "own_share": _share(len(own), len(samples)),
        },
    }


def client(run: Run, samples: Sequence[Sample]) -> Document:
    """How well the client itself kept time, and what to make of the figures where it did not."""
    late = sorted(sample.late_s for sample in samples)
    late_p99_s = quantile(late, 0.99) if late else 0.0
    warnings = []
    if late_p99_s > LATE_S:
        warnings.append(
            f"1 in 100 requests left over {late_p99_s * 1000:.0f} ms late: the client or its machine was the bottleneck"
        )
    if run.cpu_share > CPU_SHARE:
        warnings.append(f"the client took {run.cpu_share:.0%} of its core: what it measured includes its own queue")
    if unsent := sum(sample.error == "not sent: too many in flight" for sample in samples):
        warnings.append(f"{unsent} requests were not sent, as too many were in flight already")
    return {
        "late_ms": Distribution.of_seconds(late).document(),
        "cpu_share": round(run.cpu_share, 3),
        "connections": run.connections,
        "saturated": bool(warnings),
        "warnings": warnings,
    }


def swaps(by_box: Mapping[str, int], elapsed_s: float) -> Document:
    """Adapters brought into slots."""
    total = sum(by_box.values())
    return {"total": total, "per_s": round(total / elapsed_s, 3), "by_box": dict(by_box)}


def curve(values_s: Iterable[float | None]) -> list[float]:
    """The quantiles from 0 to 1 in even steps, in milliseconds: a distribution that can be drawn."""
    ordered = sorted(value * 1000 for value in values_s if value is not None)
    if not ordered:
        return []
    points = min(CURVE, len(ordered))
    return [round(quantile(ordered, n / max(points - 1, 1)), 2) for n in range(points)]


def seconds(samples: Sequence[Sample], window: Window) -> Document:
    """What was due in each second: requests, degraded ones, errors, and the worst time to first token (ms)."""
    length = max(1, math.ceil(window.end_s - window.begin_s))
    rows: Document = {name: [0] * length for name in ("requests", "degraded", "errors")}
    slowest: list[float | None] = [None] * length
    for sample in samples:
        second = min(int(sample.arrival.at_s - window.begin_s), length - 1)
        rows["requests"][second] += 1
        rows["degraded"][second] += sample.degraded is not None and sample.error is None
        rows["errors"][second] += sample.error is not None
        if sample.ttft_s is not None:
            slowest[second] = max(slowest[second] or 0.0, round(sample.ttft_s * 1000, 1))
    return {**rows, "slowest_ttft_ms": slowest}


def _targets(samples: Sequence[Sample], elapsed_s: float) -> Document:
    found = {}
    for name, some in sorted(_grouped([s for s in samples if s.error is None], lambda s: s.served_by).items()):
        output = sum(sample.output_tokens for sample in some)
        found[name] = {
            "answers": len(some),
            "models": len({sample.arrival.model for sample in some}),
            "output_tokens": output,
            "output_tokens_per_s": round(output / elapsed_s, 2),
            "ttft_ms": Distribution.of_seconds(sample.ttft_s for sample in some).document(),
        }
    return found


def _grouped(samples: Iterable[Sample], key: Callable[[Sample], str]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[key(sample)].append(sample)
    return groups


def _shares(counts: Mapping[str, int] | Counter[str | None], total: int) -> Document:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return {str(name): {"requests": count, "share": _share(count, total)} for name, count in ordered}


def _share(part: int, total: int) -> float | None:
    return round(part / total, 6) if total else None
