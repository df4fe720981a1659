"""A study as one HTML page that needs nothing else: no script, no font, no picture from elsewhere. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from backend.planner.assumptions import assumptions
from backend.planner.bill import Prices
from backend.planner.plots import COLOURS, Axis, Series, plot
from backend.planner.scenario import Scenario
from backend.planner.study import Row, Study
from backend.planner.traffic_words import traffic_line
from backend.planner.words import HEADS, answer_lines, cells

STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--paper:#fff;--line:#d0d7de}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--line:#30363d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:72rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:right;white-space:nowrap}
th:first-child,td:first-child,td:last-child{text-align:left}
.no{color:#d1242f}.yes{color:#1a7f37}
svg{width:100%;max-width:60rem;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--ink)}
svg .grid{stroke:var(--line);stroke-width:1}svg .mark{stroke:#d1242f;stroke-width:1.5;stroke-dasharray:3 3}
"""


def page(study: Study, scenarios: Sequence[Scenario], prices: Prices) -> str:
    """The whole page."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>failsoft plan</title><style>{STYLE}</style></head><body><h1>failsoft plan</h1>",
        f"<p>Goal: <strong>{escape(str(study.goal))}</strong></p>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in answer_lines(study)) + "</ul>",
        "<h2>Traffic</h2><ul>" + "".join(f"<li>{escape(traffic_line(one))}</li>" for one in scenarios) + "</ul>",
        "<h2>Options</h2><div class='wide'>" + _table(study) + "</div>",
        "<h2>Cost and time to first token</h2>" + _cost(study),
    ]
    for scenario in scenarios:
        rows = [row for row in study.rows if row.scenario == scenario.name][: len(COLOURS)]
        if not rows:
            continue
        name = escape(scenario.name)
        parts += [f"<h2>Time to first token: {name}</h2>", _cdf(rows)]
        parts += [f"<h2>Degraded over time: {name}</h2>", _over_time(rows, scenario)]
    sentences = dict.fromkeys(text for one in scenarios for text in assumptions(one, prices))
    parts.append("<h2>What this takes for granted</h2><ul>")
    parts += [f"<li>{escape(text)}</li>" for text in sentences]
    return "".join([*parts, "</ul></body></html>\n"])


def _table(study: Study) -> str:
    rows = []
    for row in study.rows:
        *most, verdict = (escape(cell) for cell in cells(row))
        tone = "no" if row.missed else "yes"
        rows.append("".join(f"<td>{cell}</td>" for cell in most) + f"<td class='{tone}'>{verdict}</td>")
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADS)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _cost(study: Study) -> str:
    series = [
        Series(
            name,
            [(row.figures.bill.total, row.figures.ttft_s[0.95]) for row in rows],
            dots=True,
            marks=[f"{row.option.boxes}×{row.option.slots}" for row in rows],
        )
        for name in dict.fromkeys(row.scenario for row in study.rows)
        if (rows := [r for r in study.rows if r.scenario == name and not math.isnan(r.figures.ttft_s[0.95])])
    ]
    return plot(Axis("USD a month", least=0.0), Axis("p95 to first token, s", logarithmic=True), series)


def _cdf(rows: Sequence[Row]) -> str:
    series = [
        Series(str(row.option), [(at_s, n / (len(row.ttft_cdf) - 1)) for n, at_s in enumerate(row.ttft_cdf)])
        for row in rows
        if len(row.ttft_cdf) > 1
    ]
    return plot(Axis("seconds", logarithmic=True), Axis("share of streams", percent=True, least=0, most=1), series)


def _over_time(rows: Sequence[Row], scenario: Scenario) -> str:
    if not any(share > 0 for row in rows for _, share in row.degraded):
        return "<p>None: nobody was degraded, and nothing failed.</p>"
    lines = [(scenario.dies_at_s, "a box dies")] if scenario.dies_at_s is not None else []
    if scenario.warm_up_s > 0:
        lines.append((scenario.warm_up_s, "counted from here"))
    series = [Series(str(row.option), row.degraded) for row in rows]
    return plot(Axis("seconds", least=0), Axis("degraded or failed", percent=True, least=0, most=0.01), series, lines)
