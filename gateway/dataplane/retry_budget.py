"""Budgets for asking twice: retries 20 % of requests plus 10 a second, races half of that, so that a sick fleet is not
asked twice for everything, nor a slow one doubled.

After Finagle's (`RetryBudget`: a share of requests deposited, a minimum a second beside it). Pure: the clock is handed
in. Fallback steps are never charged to it.
"""

from __future__ import annotations

REQUESTS_PER_RETRY = 5
"""The other way round: 20 % of requests."""
PER_SECOND = 10.0
REQUESTS_PER_RACE = 10
RACES_PER_SECOND = 5.0
SHARE_CAP = 500
"""Requests whose share may be saved up, so that a long quiet stretch allows no storm."""


class RetryBudget:
    """Two buckets: one that fills with requests, one that fills with time."""

    __slots__ = ("_at", "_from_time", "_per_second", "_requests", "_requests_each")

    def __init__(
        self,
        now: float,
        *,
        share: float = 1.0,
        per_second: float = PER_SECOND,
        requests_each: int = REQUESTS_PER_RETRY,
    ) -> None:
        """``share``: of what comes by time, where several processes share it. ``requests_each`` allow one more."""
        self._requests = 0
        self._per_second = self._from_time = per_second * share
        self._requests_each = requests_each
        self._at = now

    def request(self) -> None:
        """A request came in."""
        self._requests = min(SHARE_CAP, self._requests + 1)

    def spent_elsewhere(self, now: float) -> None:
        """A client has asked again by itself: that is one retry, whatever the budget says."""
        self.take(now)

    def left(self, now: float) -> int:
        """How many retries would be allowed now, one after the other; takes none."""
        return int(self._filled(now)) + self._requests // self._requests_each

    def take(self, now: float) -> bool:
        """Whether one more retry is within the budget; takes it if so."""
        self._from_time = self._filled(now)
        self._at = max(self._at, now)
        if self._from_time >= 1:
            self._from_time -= 1
            return True
        if self._requests >= self._requests_each:
            self._requests -= self._requests_each
            return True
        return False

    def _filled(self, now: float) -> float:
        # Of two a second or less, one has to be saved up.
        most = max(1.0, self._per_second)
        return min(most, self._from_time + max(0.0, now - self._at) * self._per_second)
