"""What a vLLM box tells Prometheus: the names, labels and buckets of vLLM 0.32 (``vllm/v1/metrics``)."""

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
FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")


class Histogram:
    """Counts by bucket, in seconds."""

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


class EngineMetrics:
    """Counters and histograms of one engine; gauges come from its state when asked."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.rejected = 0
        self.finished = dict.fromkeys(FINISHED_REASONS, 0)
        self.ttft = Histogram(TTFT_BUCKETS)
        self.inter_token = Histogram(INTER_TOKEN_BUCKETS)
        self.e2e = Histogram(LATENCY_BUCKETS)
        self.queue_time = Histogram(LATENCY_BUCKETS)
        self._lora_info: dict[str, float] = {}

    def render(self, base: str, running: int, max_loras: int, adapters: list[str], wall_s: float) -> bytes:
        """The text format. ``adapters``: those of the requests in flight."""
        labels = f'engine="0",model_name="{escape(base)}"'
        lines: list[str] = []

        def gauge(name: str, help: str, *series: tuple[str, float]) -> None:
            _family(lines, name, "gauge", help, labels, series)

        def counter(name: str, help: str, *series: tuple[str, float]) -> None:
            _family(lines, name, "counter", help, labels, series)

        gauge("vllm:num_requests_running", "Number of requests in model execution batches.", ("", running))
        gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", ("", 0))
        gauge(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason.",
            ('reason="capacity"', 0),
            ('reason="deferred"', 0),
        )
        gauge(
            "vllm:engine_sleep_state",
            "Engine sleep state.",
            ('sleep_state="awake"', 1),
            ('sleep_state="weights_offloaded"', 0),
            ('sleep_state="discard_all"', 0),
        )
        gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", ("", min(running / 256, 1.0)))
        counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in tokens.", ("", self.prompt_tokens))
        counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in tokens.", ("", 0))
        counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", ("", 0))
        counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", ("", self.prompt_tokens))
        counter("vllm:generation_tokens_total", "Number of generation tokens processed.", ("", self.generation_tokens))
        counter(
            "vllm:request_success_total",
            "Count of successfully processed requests.",
            *((f'finished_reason="{reason}"', count) for reason, count in self.finished.items()),
        )
        _family(
            lines,
            "vllm:admission_rejections_total",
            "counter",
            "Number of admission attempts rejected by a queue limit, by reason.",
            f'model_name="{escape(base)}"',
            (('reason="max_num_queued_reqs"', self.rejected), ('reason="max_num_queued_tokens"', 0)),
        )
        for name, help, histogram in (
            ("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", self.ttft),
            ("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", self.inter_token),
            ("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", self.e2e),
            (
                "vllm:request_queue_time_seconds",
                "Histogram of time spent in WAITING phase for request.",
                self.queue_time,
            ),
        ):
            lines += histogram.lines(name, help, labels)
        lines += self._lora_lines(max_loras, adapters, wall_s)
        return "\n".join([*lines, ""]).encode()

    def _lora_lines(self, max_loras: int, adapters: list[str], wall_s: float) -> list[str]:
        """As the engine does it: both labels hold the same list, the value is a Unix time, no series ever goes away."""
        both = escape(",".join(adapters))
        self._lora_info[f'max_lora="{max_loras}",running_lora_adapters="{both}",waiting_lora_adapters="{both}"'] = (
            wall_s
        )
        name = "vllm:lora_requests_info"
        return [
            f"# HELP {name} Running stats on lora requests.",
            f"# TYPE {name} gauge",
            *(f"{name}{{{series}}} {value!r}" for series, value in self._lora_info.items()),
        ]


def escape(value: str) -> str:
    """A label value as the text format wants it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _family(
    lines: list[str], name: str, kind: str, help: str, labels: str, series: tuple[tuple[str, float], ...]
) -> None:
    lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{{{labels}{',' if extra else ''}{extra}}} {float(value)}" for extra, value in series]
