"""A study in words and in the cells of a table, for the terminal and the page. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from backend.planner.study import Row, Study

HEADS = (
    "scenario",
    "boxes × slots",
    "TTFT p50",
    "p95",
    "p99",
    "end p95",
    "degraded",
    "errors",
    "swaps/request",
    "swaps/s",
    "tokens/s a box",
    "USD/month",
    "goal",
)


def cells(row: Row) -> tuple[str, ...]:
    """In the order of ``HEADS``."""
    found = row.figures
    hosted = f" ({found.bill.hosted:,.0f} hosted)" if found.bill.hosted >= 0.5 else ""
    return (
        row.scenario,
        f"{found.option.boxes} × {found.option.slots}",
        in_time(found.ttft_s[0.5]),
        in_time(found.ttft_s[0.95]),
        in_time(found.ttft_s[0.99]),
        in_time(found.e2e_s[0.95]),
        f"{found.degraded_share:.2%}",
        f"{found.failed:.2%}",
        f"{found.swaps:.2f}",
        f"{found.swaps_per_s:.2f}",
        f"{found.tokens_per_s:,.0f}",
        f"{'over ' if found.bill.unpriced else ''}{found.bill.total:,.0f}{hosted}",
        "yes" if not row.missed else "no: " + ", ".join(clause.text for clause in row.missed) + _until(row),
    )


NARROW = ("boxes×slots", "p50", "p95", "p99", "degraded", "errors", "swaps", "USD/month", "goal")


def narrow_cells(row: Row) -> tuple[str, ...]:
    """In the order of ``NARROW``: what fits into 80 columns. The percentiles are of the time to first token."""
    found = row.figures
    return (
        f"{found.option.boxes} × {found.option.slots}",
        *(in_time(found.ttft_s[q]) for q in (0.5, 0.95, 0.99)),
        f"{found.degraded_share:.1%}",
        f"{found.failed:.1%}",
        f"{found.swaps:.2f}",
        f"{found.bill.total:,.0f}",
        "yes" if not row.missed else "no" if row.stopped_at_s is None else "no*",
    )


GIVEN_UP = "* given up once the goal was out of reach: figures until then, of those that were answered"


def _until(row: Row) -> str:
    return "" if row.stopped_at_s is None else f" (given up after {row.stopped_at_s:.0f} s)"


def in_time(seconds: float) -> str:
    """Milliseconds, or seconds from one on."""
    if math.isnan(seconds):
        return "–"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def answer_lines(study: Study) -> Iterator[str]:
    """What to buy, a line a scenario."""
    for scenario in dict.fromkeys([row.scenario for row in study.rows] + [one.scenario for one in study.answers]):
        best = study.cheapest(scenario)
        if best is None:
            tried = [one for one in study.answers if one.scenario == scenario]
            most = f" of up to {tried[0].most} boxes" if tried else ""
            yield f"{scenario}: no option{most} reaches the goal"
            continue
        bill = best.figures.bill
        hosted = f" and {bill.hosted:,.0f} for hosted answers" if bill.hosted >= 0.5 else ""
        yield f"{scenario}: {best.option}, {bill.boxes:,.0f} USD a month for the boxes{hosted}"
