"""The report as one HTML file that needs nothing else: for a browser, a mail, an archive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from backend.charts import Series, bar_chart, line_chart

Document = dict[str, Any]

_STYLE = """
:root{color-scheme:light dark;--c0:#2563eb;--c1:#d97706;--c2:#dc2626;--c3:#059669;--c4:#7c3aed;--c5:#64748b}
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{padding:.25rem .7rem;border-bottom:1px solid color-mix(in srgb,currentColor 18%,transparent);text-align:right}
th:first-child,td:first-child{text-align:left}
svg{width:100%;max-width:640px;font:11px system-ui,sans-serif;fill:currentColor}
.legend span{margin-right:1.2rem}.legend i{display:inline-block;width:.8rem;height:.8rem;margin-right:.35rem}
.warning{border-left:4px solid var(--c1);padding:.2rem .8rem}
small{opacity:.75}
"""


def page(report: Document) -> str:
    """The whole file."""
    overall, run = report["overall"], report["run"]
    title = f"Load test of {run['url']}"
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        f"<h1>{escape(title)}</h1><p>{escape(_about(report))}</p>",
        *(f'<p class="warning">{escape(warning)}.</p>' for warning in report["client"]["warnings"]),
        "<h2>Overall</h2>",
        _latencies([("all", overall)]),
        _counts(report),
        "<h2>Beside separate deployments</h2>",
        _table(report["table"]["columns"], report["table"]["rows"]),
        "<small><ul>" + "".join(f"<li>{escape(one)}</li>" for one in report["table"]["assumptions"]) + "</ul></small>",
        "<h2>Latencies</h2>",
        line_chart("How many are answered within so long", _curves(report), x="ms", y="%", logarithmic_x=True),
        "<h2>Over time</h2>",
        line_chart("Requests in each second", _seconds(report), x="s", y="requests"),
        line_chart("Slowest time to first token of each second", _slowest(report), x="s", y="ms"),
        "<h2>By customer</h2>",
        bar_chart("p90 time to first token", _p90(report), unit="ms"),
        _latencies(report["customers"].items()),
        "<h2>By who answered</h2>",
        _targets(report["targets"]),
        _tally("Degraded, by reason", report["degraded"]),
        _tally("Errors", report["errors"]),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _about(report: Document) -> str:
    run = report["run"]
    return (
        f"{report['overall']['requests']:,} requests measured over {run['measured_s']:.1f} s, "
        f"{run['warm_up_requests']:,} before as warm-up, seed {run['seed']}, begun {run['began']}. "
        "Open loop: each request was sent when it was due, whatever became of the others, and is measured from then."
    )


def _latencies(scopes: Iterable[tuple[str, Document]]) -> str:
    columns = ["", "requests", "errors", "degraded", "in budget", "TTFT p50", "p90", "p99", "token p50", "p99",
               "end to end p50", "p90", "p99 (ms)"]  # fmt: skip
    rows = []
    for name, one in scopes:
        ttft, token, e2e = one["ttft_ms"], one["inter_token_ms"], one["e2e_ms"]
        values = [ttft["p50"], ttft["p90"], ttft["p99"], token["p50"], token["p99"], e2e["p50"], e2e["p90"], e2e["p99"]]
        rows.append(
            [name, f"{one['requests']:,}", f"{one['errors']:,}", percent(one["degraded_share"]),
             percent(one["goodput"]["share"]), *map(milliseconds, values)]
        )  # fmt: skip
    return _table(columns, rows)


def _counts(report: Document) -> str:
    overall, swaps = report["overall"], report["swaps"]
    goodput = overall["goodput"]
    rows = [
        ["requests a second", f"{overall['requests_per_s']:.2f}"],
        ["goodput: answered within budget, a second", f"{goodput['per_s']:.2f} ({percent(goodput['share'])})"],
        ["of these by the own adapter", percent(goodput["own_share"])],
        ["output tokens a second", f"{overall['output_tokens_per_s']:,.0f}"],
        ["adapter swaps, predicted by the gateway", "not read" if swaps is None else f"{swaps['total']:,}"],
        ["how late requests left, p99", f"{milliseconds(report['client']['late_ms']['p99'])} ms"],
    ]
    return _table(["", ""], rows)


def _targets(targets: Document) -> str:
    rows = [
        [name, f"{one['answers']:,}", f"{one['models']}", f"{one['output_tokens_per_s']:,.1f}",
         milliseconds(one["ttft_ms"]["p50"]), milliseconds(one["ttft_ms"]["p99"])]
        for name, one in targets.items()
    ]  # fmt: skip
    return _table(["", "answers", "models", "output tokens/s", "TTFT p50", "p99 (ms)"], rows)


def _tally(title: str, counts: Document) -> str:
    if not counts:
        return f"<p>{escape(title)}: none.</p>"
    rows = [[name, f"{one['requests']:,}", percent(one["share"])] for name, one in counts.items()]
    return _table([title, "requests", "share"], rows)


def _curves(report: Document) -> list[Series]:
    names = {"ttft_ms": "time to first token", "e2e_ms": "end to end"}
    return [
        Series(words, [(value, 100 * n / max(len(values) - 1, 1)) for n, value in enumerate(values)])
        for name, words in names.items()
        if (values := report["curves"][name])
    ]


def _seconds(report: Document) -> list[Series]:
    return [Series(name, list(enumerate(report["seconds"][name]))) for name in ("requests", "degraded", "errors")]


def _slowest(report: Document) -> list[Series]:
    return [Series("slowest", list(enumerate(report["seconds"]["slowest_ttft_ms"])))]


def _p90(report: Document) -> list[tuple[str, float]]:
    measured = ((name, one["ttft_ms"]["p90"]) for name, one in report["customers"].items())
    return sorted(((name, value) for name, value in measured if value is not None), key=lambda bar: -bar[1])[:40]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def milliseconds(value: float | None) -> str:
    """A figure of a table."""
    return "–" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """The same of a share from 0 to 1."""
    return "–" if share is None else f"{share:.2%}"
