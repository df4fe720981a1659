"""When each way to fall back is to be tried next. Pure: clocks and chance are handed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from gateway.drills.proof import Proof
from gateway.drills.target import Target

FIRST_SHARE = 0.1
FIRST_WITHIN_S = 600.0
"""A new one is tried within a tenth of its interval, and ten minutes: soon, but not while a policy is still edited."""

SPREAD = 0.1
"""Share of the interval by which a drill may come early, so that those that were proven together part."""

RETRY_S = 60.0
LONGEST_RETRY_S = 3600.0
"""After a failure it is tried again, with waits that double up to this: a day's outage costs some thirty drills."""


class Schedule:
    """``uniform`` gives numbers from 0 to 1. ``now`` is monotonic, in seconds."""

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self._due: dict[str, float] = {}
        self._for: dict[str, tuple[float | None, int | None]] = {}
        self._next = math.inf

    def follow(self, targets: Mapping[str, Target], proofs: Mapping[str, Proof], server_ms: int, now: float) -> None:
        """These are the ways there are, and this is known of them, when the store's clock says ``server_ms``."""
        for key in self._due.keys() - targets.keys():
            del self._due[key]
            del self._for[key]
        for key, target in targets.items():
            self.plan(target, proofs.get(key), server_ms, now)
        self._look()

    def plan(self, target: Target, proof: Proof | None, server_ms: int, now: float) -> None:
        """Work out when ``target`` is due, unless all is as it was when that was last done."""
        basis = target.every_s, None if proof is None else proof.at_ms
        if self._for.get(target.key) == basis:
            return
        self._for[target.key] = basis
        self._due[target.key] = self._work_out(target.every_s, proof, server_ms, now)
        self._next = min(self._next, self._due[target.key])

    def due(self, now: float) -> list[str]:
        """The keys of those that are due, the longest overdue first."""
        if now < self._next:
            return []
        self._look()
        return sorted((key for key, at in self._due.items() if at <= now), key=self._due.__getitem__)

    def postpone(self, key: str, until: float) -> None:
        """Not before ``until``."""
        if key in self._due:
            self._due[key] = until
            self._look()

    def _work_out(self, every_s: float | None, proof: Proof | None, server_ms: int, now: float) -> float:
        if every_s is None:
            return math.inf
        if proof is None:
            within_s = min(every_s * FIRST_SHARE, FIRST_WITHIN_S)
            return now + within_s * (1 + self._uniform()) / 2
        # A clock that was set back makes nothing due later than it would be now.
        age_s = max(0.0, (server_ms - proof.at_ms) / 1000)
        if proof.ok:
            return now + every_s * (1 - SPREAD * self._uniform()) - age_s
        retry_s = min(RETRY_S * 2.0 ** min(proof.failures - 1, 10), LONGEST_RETRY_S, every_s)
        return now + retry_s * (1 - SPREAD * self._uniform()) - age_s

    def _look(self) -> None:
        self._next = min(self._due.values(), default=math.inf)
