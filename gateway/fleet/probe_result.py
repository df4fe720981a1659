"""How a probe of a box went, for whoever looks at the box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProbeOutcome = Literal["ok", "silent", "refused", "status", "garbage", "busy"]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How the last probe went. ``at_s`` is Unix time; ``error`` is empty when it went well."""

    at_s: float
    outcome: ProbeOutcome
    took_s: float
    error: str = ""
