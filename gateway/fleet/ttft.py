"""The times to first token that the gateway itself has seen at one box: pure, time is handed in.

Three numbers are kept, none of which needs a list: what they are at best, what they are now, and how much each request
that was still silent adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LONGEST_S = 3600.0
"""Bound on any time told or given, so that no arithmetic on it leaves the finite numbers."""

RECENT_WEIGHT = 0.2
"""Of a new sample in the recent mean: TCP's smoothed round-trip time has 1/8 (RFC 6298), but samples here are fewer."""

FLOOR_WEIGHT = 0.01
"""Of a sample above the floor in the floor, which falls to a lower one at once. A minimum that never rose would keep
what one cached prompt once took as the measure of all; TCP Vegas and Envoy's gradient controller measure theirs
anew."""

OUTLIER = 4.0
"""How many times the recent mean a sample counts as at most: one cold adapter that waited long for its slot does not
make the box slow for all, and a box that has become slow is seen to be after some five samples."""

OUTLIER_SLACK_S = 0.1

LEAST_SLOPE_SAMPLES = 20
"""Before so many, one silent request's cost is not told. Of a burst that comes at one moment the first to be answered
had few before them and all the others beside them, which they would be taken to have waited for."""

SLOPE_WEIGHT = 0.05
"""Of a sample in the two sums whose ratio is the cost of one silent request."""

HALF_LIFE_S = 5.0
"""In which the recent mean goes half the way back to the floor without samples: a box that gets nothing because it was
slow must not be held to be slow for ever."""


@dataclass(frozen=True, slots=True)
class Ttft:
    """Seconds, or None where there was no sample yet. ``per_silent_s``: what each silent request before one's own
    adds."""

    floor_s: float | None = None
    recent_s: float | None = None
    per_silent_s: float | None = None


@dataclass(frozen=True, slots=True)
class TtftFinding:
    """All that a history keeps, for another process to go on from."""

    floor_s: float | None = None
    recent_s: float = 0.0
    at_s: float = 0.0
    excess: float = 0.0
    silent: float = 0.0
    behind: int = 0


class TtftHistory:
    """Learns from each first token of a customer's stream; a probe's prompt is too short to tell more than the best."""

    __slots__ = ("_at_s", "_behind", "_excess", "_floor_s", "_recent_s", "_silent")

    def __init__(self) -> None:
        self._floor_s: float | None = None
        self._recent_s = 0.0
        self._at_s = 0.0
        self._excess = 0.0
        self._silent = 0.0
        self._behind = 0

    def gave_up(self, waited_s: float, *, now: float) -> None:
        """A request was given up on after ``waited_s``: it would have taken longer, which says nothing of the best."""
        if not (math.isfinite(waited_s) and math.isfinite(now) and waited_s >= 0) or self._floor_s is None:
            return
        recent_s = self._recent(now)
        waited_s = min(waited_s, LONGEST_S, OUTLIER * recent_s + OUTLIER_SLACK_S)
        self._recent_s = recent_s + RECENT_WEIGHT * max(0.0, waited_s - recent_s)
        self._at_s = max(self._at_s, now)

    def at_best(self, ttft_s: float) -> None:
        """The box was seen to be as fast as this. Else one that was found slow, and is asked no more, stayed slow."""
        if not 0 <= ttft_s <= LONGEST_S:
            return
        if self._floor_s is None:
            self._floor_s = self._recent_s = ttft_s
        elif ttft_s < self._floor_s:
            self._floor_s = ttft_s

    def observe(self, ttft_s: float, *, silent: int, now: float) -> None:
        """A first token came ``ttft_s`` after its request was sent, when ``silent`` others had shown no content yet."""
        if not (math.isfinite(ttft_s) and math.isfinite(now) and ttft_s >= 0 and silent >= 0):
            return
        ttft_s = min(ttft_s, LONGEST_S)
        floor_s = self._floor_s
        if floor_s is None:
            self._floor_s = self._recent_s = ttft_s
        else:
            recent_s = self._recent(now)
            ttft_s = min(ttft_s, OUTLIER * recent_s + OUTLIER_SLACK_S)
            self._recent_s = recent_s + RECENT_WEIGHT * (ttft_s - recent_s)
            self._floor_s = min(ttft_s, floor_s + FLOOR_WEIGHT * (ttft_s - floor_s))
            if silent:
                self._behind += 1
                # A ratio of sums, so that one slow sample behind a single request does not stand for all.
                self._excess += SLOPE_WEIGHT * (max(0.0, ttft_s - floor_s) - self._excess)
                self._silent += SLOPE_WEIGHT * (min(silent, 10**6) - self._silent)
        self._at_s = max(self._at_s, now)

    def finding(self) -> TtftFinding:
        """All that is kept."""
        return TtftFinding(self._floor_s, self._recent_s, self._at_s, self._excess, self._silent, self._behind)

    def follow(self, found: TtftFinding) -> None:
        """Go on from what another process, which sees more, has found."""
        self._floor_s, self._recent_s, self._at_s = found.floor_s, found.recent_s, found.at_s
        self._excess, self._silent, self._behind = found.excess, found.silent, found.behind

    def view(self, now: float) -> Ttft:
        """What is known at ``now``."""
        if self._floor_s is None:
            return Ttft()
        slope_s = self._excess / self._silent if self._behind >= LEAST_SLOPE_SAMPLES else None
        return Ttft(self._floor_s, self._recent(now), slope_s)

    def _recent(self, now: float) -> float:
        floor_s = self._floor_s or 0.0
        age_s = max(0.0, now - self._at_s)
        return max(floor_s, floor_s + (self._recent_s - floor_s) * math.exp2(-age_s / HALF_LIFE_S))
