"""What a run came to, in figures. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backend.planner.bill import Bill, Prices, bill_of
from backend.planner.run import Run
from backend.planner.scenario import Option

QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the requests that are counted. Times in seconds; shares from 0 to 1; NaN where there was none of the kind.

    ``ttft_s``, ``e2e_s``: by quantile, of all answers, own and degraded; the first of streams only. ``degraded``: the
    share by reason. ``failed``: the share that got an error, or a stream that broke; ``refused``: that were over their
    customer's own limits, which are in no other share. ``swaps``: adapters copied into a slot, a request;
    ``disk_loads``: those of them that came from disk. ``tokens_per_s``: of each box.
    """

    option: Option
    requests: int
    ttft_s: dict[float, float]
    e2e_s: dict[float, float]
    degraded: dict[str, float]
    failed: float
    refused: float
    swaps: float
    swaps_per_s: float
    disk_loads: float
    tokens_per_s: float
    bill: Bill
    died: str | None
    worst_customer: tuple[str, float] | None
    """Who has the highest p95 to the first token, and it: of those with a hundredth of the requests or more."""

    @property
    def degraded_share(self) -> float:
        """Of all that was answered, whatever the reason."""
        return sum(self.degraded.values())


def figures_of(run: Run, prices: Prices) -> Figures:
    """The figures of a run."""
    counted = run.counted
    within = [one for one in counted if not one.refused]
    seconds = max(run.counted_s, 1e-9)
    by_reason = Counter(one.degraded for one in within if one.degraded is not None and not one.failed)
    by_box = [one for one in within if one.served_by.startswith(("box:", "base:")) and not one.failed]
    answered = [one for one in within if not one.failed]
    return Figures(
        option=run.option,
        requests=len(counted),
        ttft_s=quantiles(one.ttft_s for one in answered if one.streamed),
        e2e_s=quantiles(one.e2e_s for one in answered),
        degraded={reason: count / len(within) for reason, count in sorted(by_reason.items())},
        failed=_share(sum(one.failed for one in within), len(within)),
        refused=_share(len(counted) - len(within), len(counted)),
        swaps=_share(run.swaps, len(counted)),
        swaps_per_s=run.swaps / seconds,
        disk_loads=_share(run.disk_loads, len(counted)),
        tokens_per_s=sum(one.tokens for one in by_box) / seconds / run.option.boxes,
        bill=bill_of(run, prices),
        died=run.died,
        worst_customer=_worst(run),
    )


def quantile(ordered: Sequence[float], q: float) -> float:
    """Of values in order the smallest that at least the share ``q`` of all do not exceed; NaN of none."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else math.nan


def quantiles(values: Iterable[float]) -> dict[float, float]:
    """Those that are shown."""
    ordered = sorted(values)
    return {q: quantile(ordered, q) for q in QUANTILES}


def degraded_over_time(run: Run, step_s: float) -> list[tuple[float, float]]:
    """The share of the requests that were degraded or failed, by when they came: (the step's begin, share)."""
    steps: dict[int, list[bool]] = {}
    for one in run.asked:
        if not one.refused:
            steps.setdefault(int(one.at_s / step_s), []).append(one.degraded is not None or one.failed)
    return [(number * step_s, sum(found) / len(found)) for number, found in sorted(steps.items())]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _worst(run: Run) -> tuple[str, float] | None:
    by_customer: dict[str, list[float]] = {}
    counted = run.counted
    for one in counted:
        if one.streamed and one.status == 200:
            by_customer.setdefault(one.customer, []).append(one.ttft_s)
    found = [
        (name, quantile(sorted(times), 0.95)) for name, times in by_customer.items() if len(times) * 100 >= len(counted)
    ]
    return max(found, key=lambda one: (one[1], one[0]), default=None)
