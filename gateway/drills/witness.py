"""What customers' own requests show of the fallback: a degraded answer that came whole is as good as a drill."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from gateway.dataplane.candidate import Attempt
from gateway.drills.target import Drillable, key_of
from gateway.policy.compiled import BaseStep, CustomerPolicy, ProviderStep

GOOD_EVERY_S = 60.0
FAILED_EVERY_S = 5.0
"""Of one customer and step no more is told: a proof need not be of this second."""


class Tell(Protocol):
    """Who keeps the proofs."""

    def __call__(self, key: str, *, model: str, error: str) -> None:
        """A request has tried the way to fall back that has this key."""


class FallbackWitness:
    """A :class:`~gateway.dataplane.record.Witness`, on the request path: a look-up, for most answers none at all."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._told: dict[tuple[str, Drillable, bool], float] = {}

    def __call__(self, customer: CustomerPolicy, attempt: Attempt, *, model: str, error: str) -> None:
        """Tell it, unless the same was told a moment ago."""
        step = BaseStep() if attempt.kind == "base" else attempt.step
        if not isinstance(step, ProviderStep | BaseStep):
            return
        now = self._clock()
        what = customer.name, step, not error
        last = self._told.get(what)
        if last is not None and now < last + (FAILED_EVERY_S if error else GOOD_EVERY_S):
            return
        if last is None and len(self._told) >= MOST:
            self._told.clear()
        self._told[what] = now
        # After the one, the other is news.
        self._told.pop((customer.name, step, bool(error)), None)
        self._tell(key_of(customer, step), model=model, error=error)


MOST = 10_000
"""Of what was told is remembered."""
