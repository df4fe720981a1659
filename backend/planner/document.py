"""A study as JSON can say it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from backend.planner.assumptions import assumptions
from backend.planner.bill import Prices
from backend.planner.scenario import Scenario
from backend.planner.study import Row, Study
from backend.planner.traffic_words import traffic_facts


def document(study: Study, scenarios: Sequence[Scenario], prices: Prices) -> dict[str, Any]:
    """Times in seconds, shares from 0 to 1, USD a month; null where there is none."""
    return {
        "goal": str(study.goal),
        "seed": scenarios[0].seed,
        "scenarios": [
            {
                "name": one.name,
                "requests": len(one.arrivals),
                "customers": len({arrival.customer for arrival in one.arrivals}),
                "counted_s": one.counted_s,
                "warm_up_s": one.warm_up_s,
                "box_dies_at_s": one.dies_at_s,
                "traffic": traffic_facts(one),
            }
            for one in scenarios
        ],
        "answers": [
            {"scenario": one.scenario, "slots": one.slots, "boxes": one.boxes, "looked_up_to": one.most}
            for one in study.answers
        ],
        "options": [_row(row) for row in study.rows],
        "assumptions": [*dict.fromkeys(text for one in scenarios for text in assumptions(one, prices))],
    }


def _row(row: Row) -> dict[str, Any]:
    found = row.figures
    return {
        "scenario": row.scenario,
        "boxes": found.option.boxes,
        "slots": found.option.slots,
        "meets_goal": not row.missed,
        "missed": [clause.text for clause in row.missed],
        "requests": found.requests,
        "ttft_s": _quantiles(found.ttft_s),
        "e2e_s": _quantiles(found.e2e_s),
        "degraded": found.degraded_share,
        "degraded_by_reason": found.degraded,
        "errors": found.failed,
        "over_their_limits": found.refused,
        "swaps_per_request": found.swaps,
        "swaps_per_s": found.swaps_per_s,
        "disk_loads_per_request": found.disk_loads,
        "tokens_per_s_a_box": found.tokens_per_s,
        "usd_a_month": {
            "total": found.bill.total,
            "boxes": found.bill.boxes,
            "hosted": found.bill.hosted,
            "some_prices_unknown": found.bill.unpriced,
        },
        "given_up_at_s": row.stopped_at_s,
        "box_that_died": found.died,
        "worst_customer": None
        if found.worst_customer is None
        else {"customer": found.worst_customer[0], "ttft_p95_s": found.worst_customer[1]},
        "degraded_over_time": [{"at_s": at_s, "share": share} for at_s, share in row.degraded],
    }


def _quantiles(values: dict[float, float]) -> dict[str, float | None]:
    return {f"p{q * 100:g}": None if math.isnan(value) else value for q, value in values.items()}
