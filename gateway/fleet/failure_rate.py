"""The share of failures among the attempts of the last seconds: what failures in a row do not show.

A target that fails every second attempt never fails three times in a row. Pure: time is handed in.
"""

from __future__ import annotations

WINDOW_S = 10
"""Seconds that are looked back on, in buckets of one second."""

MIN_ATTEMPTS = 20
"""Fewer attempts say nothing: one unlucky customer's few are no rate. Hystrix's `requestVolumeThreshold`."""

TOO_MANY = 0.5
"""Share of failures from which a target is not worth asking. Hystrix's `errorThresholdPercentage`."""


class FailureRate:
    """Counts attempts by how they ended, over a sliding window."""

    __slots__ = ("_buckets", "_current", "_newest")

    def __init__(self) -> None:
        # Of each second of the window: [succeeded, failed].
        self._buckets: list[list[int]] = [[0, 0] for _ in range(WINDOW_S)]
        self._newest = 0
        self._current = self._buckets[0]

    def succeeded(self, now: float, count: int = 1) -> None:
        """So many attempts succeeded at ``now``, in monotonic seconds."""
        (self._current if int(now) == self._newest else self._bucket(now))[0] += count

    def failed(self, now: float) -> bool:
        """An attempt failed; whether too many have."""
        self._bucket(now)[1] += 1
        good = sum(bucket[0] for bucket in self._buckets)
        bad = sum(bucket[1] for bucket in self._buckets)
        return good + bad >= MIN_ATTEMPTS and bad >= TOO_MANY * (good + bad)

    def forget(self) -> None:
        """Begin anew: what was before is dealt with."""
        for bucket in self._buckets:
            bucket[:] = (0, 0)

    def _bucket(self, now: float) -> list[int]:
        second = int(now)
        if second - self._newest >= WINDOW_S:
            self.forget()
            self._newest = second
        while self._newest < second:
            self._newest += 1
            self._buckets[self._newest % WINDOW_S][:] = (0, 0)
        self._current = self._buckets[self._newest % WINDOW_S]
        return self._current
