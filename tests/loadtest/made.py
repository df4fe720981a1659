"""Samples and reports made up for tests."""

from __future__ import annotations

from typing import Any

from backend.loadtest.budget import Budget, Budgets
from backend.loadtest.cost import CostModel, table
from backend.loadtest.generator import Run
from backend.loadtest.report import Window, report
from backend.loadtest.sample import Sample
from backend.loadtest.scrape import Counted
from backend.traffic.arrival import Arrival

BUDGETS = Budgets(Budget(ttft_s=2.0, plain_s=10.0), {"globex": Budget(ttft_s=0.1)})


def sample(
    at_s: float = 0.0,
    *,
    customer: str = "acme",
    ttft_s: float | None = 0.1,
    took_s: float = 0.6,
    late_s: float = 0.0,
    tokens: int = 11,
    streamed: bool = True,
    **more: Any,
) -> Sample:
    """One request, due at ``at_s`` and answered by a box."""
    first_s = None if ttft_s is None or not streamed else at_s + ttft_s
    return Sample(
        Arrival(at_s, customer, f"{customer}_v3", 10, tokens, streamed),
        sent_s=at_s + late_s,
        end_s=at_s + took_s,
        first_s=first_s,
        last_s=None if first_s is None else at_s + took_s,
        status=200,
        prompt_tokens=10,
        output_tokens=tokens,
        served_by=more.pop("served_by", "box:a"),
        **more,
    )


def report_of(samples: list[Sample], *, length_s: float = 10.0, warm_up_s: float = 0.0, cpu: float = 0.1) -> Any:
    """The document, with its table."""
    run = Run(samples, unsent=0, connections=3, cpu_share=cpu, interrupted=False)
    counted = Counted({"a": 4, "b": 1}, ["a", "b"], {}, {})
    about = {"url": "http://gateway", "began": "2026-11-26T00:00:00+00:00", "seed": 1, "traffic": {}, "trace": None}
    document = report(run, Window(warm_up_s, warm_up_s + length_s), BUDGETS, counted, about)
    document["table"] = table(document, CostModel())
    return document
