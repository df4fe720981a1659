"""How many requests in flight a box is good for, learned from its times to first token: pure, time is handed in.

The rule is that of Netflix's ``Gradient2Limit`` (concurrency-limits) and of Envoy's adaptive concurrency filter: once a
window, the limit is multiplied by how the time to first token ought to be over how it is, and a square root of it is
added, so that it keeps trying for more. Total latency would say nothing: a long answer is not a slow box.

Gradient2's reference is a long mean, which a lasting overload makes its own. Here, as in Envoy, it is what the box
takes when it is not pressed: it falls to any better window at once, rises where few are in flight, and is measured anew
in a dip of the limit when the box has been pressed for a while, as TCP BBR does for its round-trip time (ProbeRTT).
"""

from __future__ import annotations

import math
from statistics import median

INITIAL = 256
"""As many as vLLM runs at once by default (`max_num_seqs`). Generous: a limit that is too high costs some time to first
token until it has come down, one too low costs answers."""

LEAST = 4
MOST = 1024

WINDOW_S = 1.0
MIN_SAMPLES = 8
"""A window ends when it has lasted that long and has seen that many (Netflix's ``WindowedLimit``: 1 s and 10)."""

MAX_SAMPLES = 512
"""Kept of one window: the median of more is no better."""

TOLERANCE = 2.0
SLACK_S = 0.1
"""The time to first token may be this many times the reference and this much more before the limit falls. Batching
makes it grow with the load long before anything queues; Envoy allows 1.25, Netflix's ``GradientLimit`` 2."""

GOOD_S = 0.5
"""A time to first token up to this never lowers the limit: it is a quarter of the default ``ttft_budget``."""

LEAST_GRADIENT = 0.5
"""One window never counts for more than halving (Gradient2)."""

SMOOTHING = 0.2
"""Share of the way to the new limit that is gone in one window (Gradient2's default). More makes it swing, as one
request more or less in a full batch moves the time to first token by a whole turn of the queue."""

HASTE = 0.5
"""The same, where the time to first token is far from what is allowed, to either side."""

APP_LIMITED = 0.5
"""With fewer in flight than this share of the limit, a window says nothing about the limit (Gradient2)."""

RISE = 0.05
"""Share of the difference by which the reference rises in a window with few in flight."""

DIP_AFTER = 30
"""Windows in a row above what the reference alone allows, after which it is measured anew (Envoy: each 60 s)."""

DIP = 0.5
"""Share of the limit that is in force meanwhile. Half is below what the box can run at once for as long as a request
takes longer than its first token may."""

DIP_MOST_S = 3.0
"""A dip that has not shown enough by then is given up: what runs takes too long to end."""

LONGEST_REFERENCE_S = 2.0
"""The reference is never more: a gateway that starts in an overload would take that for how the box is. It is the
default ``ttft_budget``; a box that needs longer when idle meets hardly anybody's."""

LONGEST_S = 3600.0


class ConcurrencyLimit:
    """The limit of one box. Feed it with every first token of a customer's stream, and with every one that was given up
    on, with the time waited until then.
    """

    __slots__ = (
        "_began_s",
        "_dip",
        "_in_flight",
        "_initial",
        "_least",
        "_limit",
        "_most",
        "_pressed",
        "_reference_s",
        "_samples",
    )

    def __init__(self, *, initial: int = INITIAL, least: int = LEAST, most: int = MOST) -> None:
        if not 1 <= least <= initial <= most:
            raise ValueError(f"a limit needs 1 <= {least} <= {initial} <= {most}")
        self._initial = initial
        self._least = least
        self._most = most
        self.reset()

    @property
    def limit(self) -> int:
        """How many may be in flight, from ``least`` to ``most``."""
        return max(self._least, int(self._limit * DIP)) if self._dip else int(self._limit)

    @property
    def reference_s(self) -> float | None:
        """The time to first token of the box when it is not pressed; None before the first window has ended."""
        return self._reference_s

    def admits(self, in_flight: int) -> bool:
        """Whether one more may be sent beside ``in_flight`` others."""
        return in_flight < self.limit

    def follow(self, limit: int) -> None:
        """Have the limit that another process has learned."""
        self._limit = float(limit)
        self._dip = False

    def reset(self) -> None:
        """Forget everything: behind the address stands another server, or the same one started anew."""
        self._limit = float(self._initial)
        self._reference_s: float | None = None
        self._pressed = 0
        self._dip = False
        self._samples: list[float] = []
        self._began_s = 0.0
        self._in_flight = 0

    def observe(self, ttft_s: float, in_flight: int, now: float) -> None:
        """A first token came, or was given up on, ``ttft_s`` after its request had been sent.

        ``in_flight``: how many were in flight once it was sent, itself counted.
        """
        if not (math.isfinite(ttft_s) and math.isfinite(now) and 0 <= ttft_s <= LONGEST_S and in_flight > 0):
            return
        samples = self._samples
        if not (samples or self._dip) or now < self._began_s:
            self._began_s = now
        # What was sent before a dip tells of the press before it.
        if len(samples) < MAX_SAMPLES and not (self._dip and in_flight > self.limit):
            samples.append(ttft_s)
            self._in_flight = max(self._in_flight, in_flight)
        elapsed_s = now - self._began_s
        if elapsed_s >= WINDOW_S and len(samples) >= MIN_SAMPLES:
            self._end_window(median(samples), self._in_flight)
        elif not (self._dip and elapsed_s >= DIP_MOST_S):
            return
        else:
            self._dip = False
        samples.clear()
        self._in_flight = 0
        self._began_s = now

    def _end_window(self, ttft_s: float, in_flight: int) -> None:
        limit = self._limit
        app_limited = in_flight < APP_LIMITED * limit
        reference_s = self._reference_s
        if reference_s is None or ttft_s < reference_s or self._dip:
            reference_s = ttft_s
        elif app_limited:
            reference_s += RISE * (ttft_s - reference_s)
        self._reference_s = reference_s = min(reference_s, LONGEST_REFERENCE_S)
        allowed_s = TOLERANCE * reference_s + SLACK_S
        if app_limited or self._dip:
            self._dip = False
            self._pressed = 0
            return
        self._pressed = self._pressed + 1 if ttft_s > allowed_s else 0
        if self._pressed >= DIP_AFTER:
            self._pressed = 0
            self._dip = True
        allowed_s = max(allowed_s, GOOD_S)
        gradient = 1.0 if ttft_s <= allowed_s else max(LEAST_GRADIENT, allowed_s / ttft_s)
        target = limit * gradient + math.sqrt(limit)
        near = allowed_s / 2 <= ttft_s <= allowed_s / LEAST_GRADIENT
        limit += (SMOOTHING if near else HASTE) * (target - limit)
        self._limit = min(float(self._most), max(float(self._least), limit))
