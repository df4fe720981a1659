"""A run's report: one HTML file that needs nothing else and runs no script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from backend.evalgate.comparison import Comparison
from backend.evalgate.difference import call_shown, differences
from backend.evalgate.gate import p_value
from backend.evalgate.plots import drops_plot, outcomes_plot, scores_plot
from backend.evalgate.result import Change, Result
from backend.evalgate.said import Said
from backend.evalgate.scores import Scores
from backend.evalgate.verdict import Outcome

MOST_CHANGES: Final = 500
"""Changed cases on the page; ``result.json`` has all."""

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --line: #d9dde3; --text: #1b1f24; --quiet: #59636e;
  --good: #1a7f37; --bad: #b42318; --warn: #8a5a00; --one: #59636e; --two: #3b6fd4; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1a1e25; --line: #313844; --text: #e6e9ee;
  --quiet: #9aa4b2; --good: #6fdc8c; --bad: #ff9a90; --warn: #f2c14b; --one: #9aa4b2; --two: #6c9bf0; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.25rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 0 0 .6rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem 1.1rem;
  margin: 1rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--quiet); font-size: .85rem; white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); } .quiet { color: var(--quiet); }
strong.verdict { font-size: 1.2rem; }
pre, code { font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
details { border-top: 1px solid var(--line); padding: .4rem 0; } summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .5rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; } svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--text); }
svg.key { width: .8em; height: .8em; }
svg .tick { fill: var(--quiet); } svg .grid { stroke: var(--line); } svg .zero { stroke: var(--quiet); }
svg .bound { stroke: var(--bad); stroke-dasharray: 4 3; } svg g line { stroke-width: 2; }
svg .baseline { stroke: var(--one); fill: var(--one); } svg .candidate { stroke: var(--two); fill: var(--two); }
svg .within { stroke: var(--good); fill: var(--good); } svg .over { stroke: var(--bad); fill: var(--bad); }
"""
_COLOURS = (
    "#2da44e", "#d1242f", "#bf8700", "#8250df", "#0969da", "#6e7781", "#57606a", "#e85aad", "#a40e26",
)  # fmt: skip


def page(result: Result) -> str:
    """The document."""
    gate, plan = result.gate, result.plan
    colours = "".join(f"svg .o{n}, .o{n} {{ fill: {colour}; }}\n" for n, colour in enumerate(_COLOURS))
    parts = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{'passed' if result.passed else 'tripped'}: failsoft eval</title><style>{_STYLE}{colours}</style>"
        "</head><body><h1>failsoft eval</h1>",
        _section("", _verdict(result)),
        _section("", _setting(plan, result)),
        _section("By customer", _customers(result)),
        _section("Parts of the answers, baseline → candidate", _parts(result)),
        _section("Points lost", drops_plot(result.customers, None if gate is None else gate.points)),
        _section("Right answers", _legend() + scores_plot(result.customers)),
        _section("What the answers came to", _outcomes(result.overall) + outcomes_plot(result.overall)),
        _section(f"Changed cases ({len(result.changes)})", _changes(result.changes)),
        "</body></html>\n",
    ]
    return "".join(parts)


def _verdict(result: Result) -> str:
    if result.gate is None:
        head = "<strong class='verdict'>No gate: the scores are only shown</strong>"
    elif result.passed:
        bound = f"{result.gate.points:g} points"
        head = f"<strong class='verdict good'>✓ The gate passes: no customer loses more than {bound}</strong>"
    else:
        count = len(result.tripped)
        customers = f"{count} customer{'s' if count > 1 else ''}"
        head = f"<strong class='verdict bad'>✕ The gate trips for {customers}</strong>"
    lines = [f"<li class='bad'><b>{escape(one.customer)}</b>: {escape(one.why)}</li>" for one in result.tripped]
    lines += [f"<li class='warn'>{escape(line)}</li>" for line in result.warnings]
    return f"{head}<ul>{''.join(lines)}</ul>" if lines else head


def _setting(plan: Any, result: Result) -> str:
    sampling = plan["sampling"]
    how = "greedy" if sampling["temperature"] == 0 else f"temperature {sampling['temperature']:g}"
    facts = {
        "baseline": _path(plan["baseline"]),
        "candidate": _path(plan["candidate"]),
        "sampling": f"{how}, {sampling['samples']} a prompt, at most {sampling['max_tokens']} tokens"
        + (", streamed" if sampling["stream"] else ""),
        "prompts": f"{result.overall.baseline.prompts} of {len(result.customers)} customers",
        "sets": plan["digest"][:16],
        "enum values": "as declared" if result.enum_case else "in any case",
        "begun": plan.get("began", ""),
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(str(fact))}</dd>" for name, fact in facts.items()) + "</dl>"


def _path(path: Any) -> str:
    ends = [path["of_all"]] if path["of_all"] else []
    ends += [f"{name}={end}" for name, end in path["of_customer"].items()]
    return ", ".join(ends) + (" (the fallback's answers)" if path["degraded"] else "")


def _customers(result: Result) -> str:
    tripped = {one.customer for one in result.tripped}
    heads = (
        "customer", "", "prompts", "baseline", "candidate", "points lost", "95 % interval", "worse / better", "p",
    )  # fmt: skip
    # The gate judges customers: all of them together have no mark.
    marks = [_mark(one.customer in tripped) if result.gate is not None else "" for one in result.customers] + [""]
    every = *result.customers, result.overall
    return _table(heads, [_judged(one, mark) for one, mark in zip(every, marks, strict=True)], first_figure=2)


def _parts(result: Result) -> str:
    heads = "customer", "tool name", "arguments", "both", "no call where none is due", "invalid JSON"
    rows = []
    for one in (*result.customers, result.overall):
        pairs = [_pair(one.baseline, one.candidate, name) for name in ("name", "arguments", "both", "refusals")]
        rows.append([one.customer, *pairs, f"{one.baseline.invalid_json} → {one.candidate.invalid_json}"])
    return _table(heads, rows, first_figure=1)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, first_figure: int) -> str:
    """``rows``: a name, which is text, and cells that are HTML."""

    def cells(row: Sequence[str]) -> str:
        return "".join(f"<td{' class=n' if n >= first_figure else ''}>{cell}</td>" for n, cell in enumerate(row) if n)

    head = "".join(
        f"<th scope='col'{' class=n' if n >= first_figure else ''}>{name}</th>" for n, name in enumerate(heads)
    )
    body = "".join(f"<tr><th scope='row'>{escape(row[0])}</th>{cells(row)}</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _mark(tripped: bool) -> str:
    return "<span class='bad'>✕&nbsp;trips</span>" if tripped else "<span class='good'>✓</span>"


def _judged(one: Comparison, mark: str) -> list[str]:
    return [
        one.customer,
        mark,
        str(one.baseline.prompts),
        _percent(one.baseline.right),
        _percent(one.candidate.right),
        f"{one.drop_points:z.2f}",
        f"{one.interval[0]:z.2f} to {one.interval[1]:z.2f}",
        f"{one.worse} / {one.better}",
        p_value(one.p),
    ]


def _pair(baseline: Scores, candidate: Scores, name: str) -> str:
    return f"{_percent(getattr(baseline, name))} → {_percent(getattr(candidate, name))}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _legend() -> str:
    return "<p class='quiet'>Above: baseline (grey). Below: candidate (blue).</p>"


def _outcomes(overall: Comparison) -> str:
    keys = []
    for number, outcome in enumerate(Outcome):
        counts = [scores.outcomes.get(outcome, 0) for scores in (overall.baseline, overall.candidate)]
        if any(counts):
            swatch = f"<svg class='key' viewBox='0 0 9 9'><rect class='o{number}' width='9' height='9'/></svg>"
            keys.append(f"{swatch} {outcome} {counts[0]} → {counts[1]}")
    return f"<p>{' · '.join(keys)}</p>"


def _changes(changes: Sequence[Change]) -> str:
    if not changes:
        return "<p>Every prompt came out alike on both paths.</p>"
    shown = "".join(_change(one) for one in changes[:MOST_CHANGES])
    more = len(changes) - MOST_CHANGES
    return shown + (f"<p class='quiet'>and {more} more, in result.json</p>" if more > 0 else "")


def _change(one: Change) -> str:
    expected = one.case.expected
    call = "no call" if expected is None else call_shown(expected.name, expected.arguments)
    kind = "<span class='bad'>worse</span>" if one.worse else "<span class='good'>better</span>"
    prompt = one.case.messages[-1].get("content")
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
    counts = "" if one.of == 1 else f" ({one.right[0]} → {one.right[1]} of {one.of} right)"
    facts = [
        ("prompt", f"<pre>{escape(text[:2000])}</pre>"),
        ("expected", f"<code>{escape(call)}</code>"),
        ("baseline", _said(one, one.baseline)),
        ("candidate", _said(one, one.candidate)),
    ]
    body = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    name = f"{escape(one.case.customer)} · {escape(one.case.id)}"
    return f"<details><summary>{kind} {name}{counts}</summary><dl>{body}</dl></details>"


def _said(one: Change, said: Said) -> str:
    calls = [f"{call.name}({call.arguments})" for call in said.calls]
    text = "\n".join(calls) or said.refusal or said.content or said.error or "(nothing)"
    lines = _listed(differences(one.case, said))
    return f"<code>{escape(text[:2000])}</code>{lines}"


def _listed(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul class='bad'>{items}</ul>" if items else ""


def _section(title: str, content: str) -> str:
    head = f"<h2>{escape(title)}</h2>" if title else ""
    return f"<section>{head}{content}</section>"
