"""What a plan planned: its traffic, for people and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.planner.scenario import Scenario
from backend.traffic.lengths import Lengths
from backend.traffic.mix import ZIPF


def traffic_facts(scenario: Scenario) -> dict[str, Any]:
    """What was drawn or recorded; under ``given`` what it was drawn from, null of a trace."""
    arrivals, mix = scenario.arrivals, scenario.mix
    return {
        "source": scenario.source,
        "requests_per_minute": _rate(scenario),
        "customers": len({one.customer for one in arrivals}),
        "adapters": len({one.model for one in arrivals}),
        "zipf": _zipf(scenario),
        "prompt_tokens": _spread([one.prompt_tokens for one in arrivals]),
        "output_tokens": _spread([one.output_tokens for one in arrivals]),
        "streamed": _streamed(scenario),
        "given": None if mix is None else mix.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def traffic_line(scenario: Scenario) -> str:
    """In one sentence."""
    mix, zipf, streamed = scenario.mix, _zipf(scenario), _streamed(scenario)
    count = len({one.customer for one in scenario.arrivals})
    whose = f"{count:,} customer{'' if count == 1 else 's'}"
    if mix is not None:
        whose += " by their weights" if zipf is None else f" by Zipf's law ({zipf:g})"
    parts = [
        f"{_rate(scenario):,.5g} requests a minute",
        whose,
        f"prompts of {_lengths(mix.prompt_tokens if mix else None, [one.prompt_tokens for one in scenario.arrivals])}",
        f"answers of {_lengths(mix.output_tokens if mix else None, [one.output_tokens for one in scenario.arrivals])}",
        "all streamed" if streamed == 1 else f"{100 * streamed:.3g} % streamed",
        f"{scenario.warm_up_s:g} s of warm-up, {scenario.counted_s:g} s counted",
    ]
    if mix is not None and mix.bursts:
        parts.append(f"{len(mix.bursts)} burst{'' if len(mix.bursts) == 1 else 's'}")
    return f"{scenario.name}: {scenario.source}: {', '.join(parts)}"


def _rate(scenario: Scenario) -> float:
    """Requests a minute: as given, or as recorded."""
    if scenario.mix is not None:
        return scenario.mix.requests_per_minute
    return round(60 * len(scenario.arrivals) / scenario.length_s, 3)


def _zipf(scenario: Scenario) -> float | None:
    mix = scenario.mix
    if mix is None or mix.customers is not None:
        return None
    return ZIPF if mix.zipf is None else mix.zipf


def _streamed(scenario: Scenario) -> float:
    return sum(one.streamed for one in scenario.arrivals) / max(len(scenario.arrivals), 1)


def _spread(values: Sequence[int]) -> dict[str, float]:
    ordered = sorted(values) or [0]
    return {
        "mean": round(sum(ordered) / len(ordered), 1),
        "p50": ordered[len(ordered) // 2],
        "p90": ordered[min(len(ordered) * 9 // 10, len(ordered) - 1)],
        "max": ordered[-1],
    }


def _lengths(given: Lengths | None, drawn: Sequence[int]) -> str:
    if given is not None and given.fixed is not None:
        return f"{given.fixed:,} tokens"
    if given is not None and given.uniform is not None:
        return f"{given.uniform[0]:,} to {given.uniform[1]:,} tokens"
    found = _spread(drawn)
    return f"{found['p50']:,g} tokens (p90 {found['p90']:,g})"
