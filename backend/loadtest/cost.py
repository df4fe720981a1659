"""Shared boxes beside one deployment an adapter: the table of the field report, from a run and stated assumptions.

The report (a team with 40 customers, see docs/evidence.md) gives about 24,000 USD a month for 40 idle deployments and
1,200 for two boxes: 600 USD a GPU a month, which is the default here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CostModel:
    """What the table is reckoned with.

    ``gpu_usd_per_month``: one GPU, rented or written off, busy or not. ``gpus_per_box``: of the shared boxes;
    a deployment that serves one adapter alone has one. ``base_gb``: weights of the base in memory; ``adapter_mb``: of
    one adapter.
    """

    gpu_usd_per_month: float = 600.0
    gpus_per_box: int = 1
    base_gb: float = 16.0
    adapter_mb: float = 42.0

    def assumptions(self, boxes: int, adapters: int, *, alone: bool) -> list[str]:
        """In sentences."""
        return [
            f"A GPU costs {self.gpu_usd_per_month:,.0f} USD a month, busy or idle; nothing else is counted (no people, "
            "no network, no hosted provider).",
            f"The shared fleet is {boxes} {'box' if boxes == 1 else 'boxes'} of {self.gpus_per_box} GPU; apart, each "
            f"of the {adapters} adapters has a deployment of 1 GPU, with "
            "one replica and no spare.",
            f"The base takes {self.base_gb:g} GB in memory, an adapter {self.adapter_mb:g} MB.",
            "Figures of a separate deployment are of one that was measured (--beside), with the traffic that it had."
            if alone
            else "No separate deployment was measured (--beside), so it has no figures.",
        ]


def boxes_seen(report: Document) -> int:
    """How many boxes the run knows of: those that answered, and those that the gateway's metrics name."""
    answered = {name.partition(":")[2] for name in report["targets"] if name.startswith(("box:", "base:"))}
    return len(answered | set(report["boxes"]))


def table(report: Document, model: CostModel, beside: Document | None = None) -> Document:
    """``{"columns", "rows", "assumptions"}``. ``beside``: a report of a run against one standalone deployment."""
    boxes = max(boxes_seen(report), 1)
    adapters = report["run"].get("adapters") or report["overall"]["models"]
    apart_gpus, shared_gpus = adapters, boxes * model.gpus_per_box
    per_box = report["overall"]["output_tokens_per_s"] / boxes
    swaps = report["swaps"]
    rows = [
        ("GPUs", str(apart_gpus), str(shared_gpus)),
        ("base weights in memory", _copies(adapters, model), _copies(boxes, model)),
        ("adapter memory, each box", "–", f"{adapters * model.adapter_mb / 1000:.2f} GB if all are resident"),
        ("idle cost a month", _usd(apart_gpus, model), _usd(shared_gpus, model)),
        (f"p50 latency{_tokens(report)}", _ms(beside, "e2e_ms", "p50"), _ms(report, "e2e_ms", "p50")),
        ("p50 time to first token", _ms(beside, "ttft_ms", "p50"), _ms(report, "ttft_ms", "p50")),
        ("p99 time to first token", _ms(beside, "ttft_ms", "p99"), _ms(report, "ttft_ms", "p99")),
        ("adapter swaps", "–", "–" if swaps is None else f"{swaps['per_s']:.2f}/s, predicted by the gateway"),
        ("output tokens a second a box", _rate(beside), f"{per_box:,.0f}"),
        ("answered within budget by the own adapter", _own(beside), _own(report)),
    ]
    return {
        "columns": ["", f"{adapters} deployments", f"{boxes} {'box' if boxes == 1 else 'boxes'}, shared"],
        "rows": [list(row) for row in rows],
        "assumptions": model.assumptions(boxes, adapters, alone=beside is not None),
    }


def _copies(count: int, model: CostModel) -> str:
    return f"{count} × {model.base_gb:g} GB"


def _usd(gpus: int, model: CostModel) -> str:
    return f"{gpus * model.gpu_usd_per_month:,.0f} USD"


def _tokens(report: Document) -> str:
    mean = report["overall"]["mean_output_tokens"]
    return "" if mean is None else f", {mean:.0f} tokens on average"


def _ms(report: Document | None, name: str, point: str) -> str:
    value = None if report is None else report["overall"][name][point]
    return "–" if value is None else f"{value:,.0f} ms"


def _rate(report: Document | None) -> str:
    return "–" if report is None else f"{report['overall']['output_tokens_per_s']:,.0f}"


def _own(report: Document | None) -> str:
    share = None if report is None else report["overall"]["goodput"]["own_share"]
    return "–" if share is None else f"{share:.2%}"
