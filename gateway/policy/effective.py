"""What holds for a customer: its own key, or else the default's, or else the built-in one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.policy.compiled import OnBrokenStream, Priority
from gateway.policy.models import Drills, Hosted, Limits, Provider, ProviderStep, Rules, Step

BUILT_IN_PROVIDER = "hosted"
TTFT_BUDGET_S = 2.0
DEADLINE_S = 60.0
ALLOWED = Hosted()
NO_LIMITS = Limits()
BUILT_IN_FALLBACK: list[Step] = [ProviderStep(provider=BUILT_IN_PROVIDER)]
"""Where the fleet's file has a provider of that name, and else nothing."""
PLAIN_SHARE = 0.5
"""Of the deadline, where no ``plain_budget`` is written."""
STALL_TIMEOUT_S = 10.0
DRILLS = Drills()
DRILL_EVERY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Effective:
    """One customer's rules with nothing left open. Durations in seconds."""

    ttft_budget_s: float
    plain_budget_s: float
    deadline_s: float
    stall_timeout_s: float
    on_broken_stream: OnBrokenStream
    seed_streams: bool
    priority: Priority
    limits: Limits
    hosted: Hosted
    drill_every_s: float | None
    """None: never."""
    drill_share: float
    steps: tuple[Step, ...]
    dropped: int
    """Provider steps that ``hosted.allowed: false`` takes out."""


def effective(defaults: Rules, customer: Rules, providers: Mapping[str, Provider]) -> Effective:
    """Whole keys replace whole keys: nothing inside of them is merged."""

    def value(key: str, built_in: Any) -> Any:
        own = getattr(customer, key)
        if own is not None:
            return own
        default = getattr(defaults, key)
        return built_in if default is None else default

    deadline_s = value("deadline", DEADLINE_S)
    drills: Drills = value("drills", DRILLS)
    every_s = DRILL_EVERY_S if drills.every is None else drills.every
    hosted: Hosted = value("hosted", ALLOWED)
    written: list[Step] = value("fallback", BUILT_IN_FALLBACK if BUILT_IN_PROVIDER in providers else [])
    steps = tuple(step for step in written if hosted.allowed or not isinstance(step, ProviderStep))
    return Effective(
        ttft_budget_s=value("ttft_budget", TTFT_BUDGET_S),
        plain_budget_s=value("plain_budget", deadline_s * PLAIN_SHARE),
        deadline_s=deadline_s,
        stall_timeout_s=value("stall_timeout", STALL_TIMEOUT_S),
        on_broken_stream=value("on_broken_stream", "resume"),
        seed_streams=value("seed_streams", False),
        priority=value("priority", "standard"),
        limits=value("limits", NO_LIMITS),
        hosted=hosted,
        drill_every_s=None if math.isinf(every_s) else every_s,
        drill_share=drills.share or 0.0,
        steps=steps,
        dropped=len(written) - len(steps),
    )
