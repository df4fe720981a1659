"""Prometheus histograms with the buckets of vLLM 0.32 (``vllm/v1/metrics/buckets.py``, ``loggers.py``)."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
INTER_TOKEN_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
LATENCY_BUCKETS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0,
    40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
STEP_TOKEN_BUCKETS = (
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
)  # fmt: skip


class Histogram:
    """Counts by bucket; the last one has no bound."""

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float, *, times: int = 1) -> None:
        """Count ``value``, ``times`` times."""
        if times > 0:
            self.counts[bisect_left(self.buckets, value)] += times
            self.sum += value * times

    def lines(self, name: str, help: str, labels: str) -> list[str]:
        """The text format."""
        bounds = (*(str(bucket) for bucket in self.buckets), "+Inf")
        total = sum(self.counts)
        return [
            f"# HELP {name} {help}",
            f"# TYPE {name} histogram",
            *(
                f'{name}_bucket{{{labels},le="{bound}"}} {float(count)}'
                for bound, count in zip(bounds, accumulate(self.counts), strict=True)
            ),
            f"{name}_count{{{labels}}} {float(total)}",
            f"{name}_sum{{{labels}}} {self.sum}",
        ]


def token_buckets(max_model_len: int) -> tuple[float, ...]:
    """1, 2, 5 times the powers of ten, up to the longest that a request can be."""
    steps = (float(factor * 10**power) for power in range(len(str(max_model_len))) for factor in (1, 2, 5))
    return tuple(step for step in steps if step <= max_model_len)
