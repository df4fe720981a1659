"""Two reports beside each other: what got worse, and whether by more than is allowed. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Document = dict[str, Any]
Verdict = Literal["worse", "better", "same", "not judged"]

LATENCIES = ("ttft_ms", "inter_token_ms", "e2e_ms")
POINTS = (("p50", 20), ("p90", 50), ("p99", 200))
"""Percentiles, and the answers below which one says too little to be judged: at 200 two are beyond the p99."""

_MOST_NAMED = 8
"""Keys of a traffic that are told to differ."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What may get worse by how much: ``relative`` of latencies and throughput, ``points`` (percentage points) of
    shares."""

    relative: float = 0.10
    points: float = 1.0


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure in both. ``change``: relative, or in points of shares; None where one of them has none."""

    scope: str
    name: str
    before: float | None
    after: float | None
    change: float | None
    unit: Literal["ms", "tokens/s", "share"]
    verdict: Verdict


def compare(before: Document, after: Document, threshold: Threshold, *, customers: bool = True) -> list[Difference]:
    """All figures of both reports: overall, and of each customer that is in both."""
    found = list(_scope("overall", before["overall"], after["overall"], threshold))
    if customers:
        for name in before["customers"]:
            if name in after["customers"]:
                found += _scope(name, before["customers"][name], after["customers"][name], threshold)
    return found


def differing_runs(before: Document, after: Document) -> list[str]:
    """Why the two may not be comparable, in sentences."""
    said = []
    for key in ("traffic", "trace", "seed", "url"):
        one, other = before["run"].get(key), after["run"].get(key)
        # A mix beside a trace is told of once, as the trace.
        if one != other and (key != "traffic" or (one is not None and other is not None)):
            said.append(f"the runs differ in {key}: {'; '.join(_apart(one, other))}")
    for which, one in (("first", before), ("second", after)):
        said += [f"the {which} run: {warning}" for warning in one["client"]["warnings"]]
        if one["run"]["interrupted"]:
            said.append(f"the {which} run was interrupted")
    return said


def _apart(one: Any, other: Any) -> list[str]:
    """Both values, of mappings those that differ, each with its key."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return [f"{_worded(one)} and {_worded(other)}"]
    first, second = dict(_leaves(one)), dict(_leaves(other))
    keys = [key for key in first | second if first.get(key) != second.get(key)]
    lines = [f"{key} {_worded(first.get(key))} and {_worded(second.get(key))}" for key in keys[:_MOST_NAMED]]
    return lines if len(keys) <= _MOST_NAMED else [*lines, f"and {len(keys) - _MOST_NAMED} more"]


def _leaves(of: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in of.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _worded(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _scope(scope: str, before: Document, after: Document, threshold: Threshold) -> Iterator[Difference]:
    for name in LATENCIES:
        for point, enough in POINTS:
            few = min(before[name]["count"], after[name]["count"]) < enough
            yield _relative(
                scope, f"{name.removesuffix('_ms')} {point}", before[name][point], after[name][point], threshold, few
            )
    few = min(before["requests"], after["requests"]) < 100
    for name, value in (("in budget", "share"), ("own adapter in budget", "own_share")):
        yield _share(
            scope, name, before["goodput"][value], after["goodput"][value], threshold, few, more_is_worse=False
        )
    yield _share(scope, "degraded", before["degraded_share"], after["degraded_share"], threshold, few)
    yield _share(scope, "errors", _errors(before), _errors(after), threshold, few)
    rates = before["output_tokens_per_s"], after["output_tokens_per_s"]
    change = None if not rates[0] else rates[1] / rates[0] - 1
    yield Difference(
        scope, "output tokens", *rates, change, "tokens/s", _verdict(_minus(change), threshold.relative, few)
    )


def _relative(
    scope: str, name: str, before: float | None, after: float | None, threshold: Threshold, few: bool
) -> Difference:
    change = None if not before or after is None else after / before - 1
    return Difference(scope, name, before, after, change, "ms", _verdict(change, threshold.relative, few))


def _share(
    scope: str, name: str, before: float | None, after: float | None, threshold: Threshold, few: bool,
    *, more_is_worse: bool = True,
) -> Difference:  # fmt: skip
    change = None if before is None or after is None else (after - before) * 100
    worsening = change if more_is_worse else _minus(change)
    return Difference(scope, name, before, after, change, "share", _verdict(worsening, threshold.points, few))


def _verdict(worsening: float | None, allowed: float, few: bool) -> Verdict:
    if worsening is None or few:
        return "not judged"
    # A hair's breadth for what floats make of a difference that is exactly what is allowed.
    return "worse" if worsening > allowed + 1e-9 else "better" if worsening < -allowed - 1e-9 else "same"


def _minus(change: float | None) -> float | None:
    return None if change is None else -change


def _errors(summary: Document) -> float | None:
    return summary["errors"] / summary["requests"] if summary["requests"] else None
