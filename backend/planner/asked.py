"""One request of a plan, and what became of it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Asked:
    """Times in seconds; ``at_s`` from the start of the traffic.

    ``ttft_s``: to the first content, or to the error that came instead; ``e2e_s``: to the end. ``status``: 0 while
    there is no answer. ``degraded``: why another than the own adapter answered. ``broken``: a stream that ended with an
    error.
    """

    at_s: float
    customer: str
    streamed: bool
    tokens: int
    ttft_s: float = math.nan
    e2e_s: float = math.nan
    status: int = 0
    served_by: str = ""
    degraded: str | None = None
    broken: bool = False

    @property
    def ended(self) -> bool:
        """Whether all of its answer has come."""
        return not math.isnan(self.e2e_s)

    @property
    def refused(self) -> bool:
        """Turned away for its customer's own limits."""
        return self.status == 429

    @property
    def failed(self) -> bool:
        """It got no whole answer, though its customer was within its limits."""
        return self.broken or self.status not in (200, 429)
