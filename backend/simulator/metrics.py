"""What a vLLM box tells Prometheus: the names, types and labels of vLLM 0.32 (``vllm/v1/metrics/loggers.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.simulator.histogram import (
    INTER_TOKEN_BUCKETS,
    LATENCY_BUCKETS,
    STEP_TOKEN_BUCKETS,
    TTFT_BUCKETS,
    Histogram,
    token_buckets,
)

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")


@dataclass(frozen=True, slots=True)
class Gauges:
    """What the engine last said of itself. With the real one that was at the end of a step, so it may be old.

    ``kv_usage``: 0 to 1. ``sleep_level``: None while awake.
    """

    running: int = 0
    waiting_capacity: int = 0
    waiting_deferred: int = 0
    kv_usage: float = 0.0
    sleep_level: int | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """One request that came to its end, all times in seconds."""

    reason: str
    prompt_tokens: int
    generated_tokens: int
    e2e_s: float
    queue_s: float
    prefill_s: float
    decode_s: float


class EngineMetrics:
    """Counters and histograms of one engine."""

    def __init__(self, *, max_model_len: int = 8192) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.preemptions = 0
        self.rejected = 0
        self.finished = dict.fromkeys(FINISHED_REASONS, 0)
        self.ttft = Histogram(TTFT_BUCKETS)
        self.inter_token = Histogram(INTER_TOKEN_BUCKETS)
        self.step_tokens = Histogram(STEP_TOKEN_BUCKETS)
        self._per_token = Histogram(INTER_TOKEN_BUCKETS)
        self._e2e = Histogram(LATENCY_BUCKETS)
        self._queue = Histogram(LATENCY_BUCKETS)
        self._prefill = Histogram(LATENCY_BUCKETS)
        self._decode = Histogram(LATENCY_BUCKETS)
        self._inference = Histogram(LATENCY_BUCKETS)
        self._prompt = Histogram(token_buckets(max_model_len))
        self._generated = Histogram(token_buckets(max_model_len))
        self._lora_info: dict[str, float] = {}

    def finish(self, request: Finished) -> None:
        """Count a request that came to its end."""
        self.finished[request.reason] += 1
        self._e2e.observe(request.e2e_s)
        self._queue.observe(request.queue_s)
        self._prefill.observe(request.prefill_s)
        self._decode.observe(request.decode_s)
        self._inference.observe(request.prefill_s + request.decode_s)
        self._per_token.observe(request.decode_s / max(request.generated_tokens - 1, 1))
        self._prompt.observe(request.prompt_tokens)
        self._generated.observe(request.generated_tokens)

    def note_loras(self, max_loras: int, adapters: Sequence[str], wall_s: float) -> None:
        """``vllm:lora_requests_info`` as the engine has it, flaws included.

        Both labels hold the same list, the value is a Unix time, and no series ever goes away.
        """
        both = escape(",".join(adapters))
        labels = f'max_lora="{max_loras}",running_lora_adapters="{both}",waiting_lora_adapters="{both}"'
        self._lora_info[labels] = wall_s

    def render(self, base: str, now: Gauges) -> bytes:
        """The text format."""
        model = f'model_name="{escape(base)}"'
        text = _Text(f'engine="0",{model}')
        text.gauge("num_requests_running", "Number of requests in model execution batches.", now.running)
        waiting = now.waiting_capacity + now.waiting_deferred
        text.gauge("num_requests_waiting", "Number of requests waiting to be processed.", waiting)
        reasons = {"capacity": now.waiting_capacity, "deferred": now.waiting_deferred}
        text.gauge("num_requests_waiting_by_reason", "Number of waiting requests by reason.", reasons, "reason")
        states = {
            "awake": now.sleep_level is None,
            "weights_offloaded": now.sleep_level == 1,
            "discard_all": now.sleep_level == 2,
        }
        text.gauge("engine_sleep_state", "Engine sleep state.", states, "sleep_state")
        text.gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", now.kv_usage)
        text.counter("prefix_cache_queries", "Prefix cache queries, in tokens.", self.prompt_tokens)
        text.counter("prefix_cache_hits", "Prefix cache hits, in tokens.", 0)
        text.counter("num_preemptions", "Cumulative number of preemption from the engine.", self.preemptions)
        text.counter("prompt_tokens", "Number of prefill tokens processed.", self.prompt_tokens)
        text.counter("generation_tokens", "Number of generation tokens processed.", self.generation_tokens)
        text.counter("request_success", "Count of successfully processed requests.", self.finished, "finished_reason")
        for name, help, histogram in (
            ("request_prompt_tokens", "Number of prefill tokens processed.", self._prompt),
            ("request_generation_tokens", "Number of generation tokens processed.", self._generated),
            ("iteration_tokens_total", "Histogram of number of tokens per engine_step.", self.step_tokens),
            ("time_to_first_token_seconds", "Histogram of time to first token in seconds.", self.ttft),
            ("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", self.inter_token),
            (
                "request_time_per_output_token_seconds",
                "Histogram of time_per_output_token_seconds per request.",
                self._per_token,
            ),
            ("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", self._e2e),
            ("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", self._queue),
            (
                "request_inference_time_seconds",
                "Histogram of time spent in RUNNING phase for request.",
                self._inference,
            ),
            ("request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", self._prefill),
            ("request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", self._decode),
        ):
            text.lines += histogram.lines(f"vllm:{name}", help, text.labels)
        text.labels = model
        rejections = {"max_num_queued_reqs": self.rejected, "max_num_queued_tokens": 0}
        text.counter(
            "admission_rejections", "Number of admission attempts rejected by a queue limit.", rejections, "reason"
        )
        text.head("lora_requests_info", "gauge", "Running stats on lora requests.")
        text.lines += (f"vllm:lora_requests_info{{{labels}}} {value!r}" for labels, value in self._lora_info.items())
        return "\n".join([*text.lines, ""]).encode()


class _Text:
    """Prometheus text, family by family."""

    def __init__(self, labels: str) -> None:
        self.labels = labels
        self.lines: list[str] = []

    def head(self, name: str, kind: str, help: str) -> None:
        self.lines += [f"# HELP vllm:{name} {help}", f"# TYPE vllm:{name} {kind}"]

    def gauge(self, name: str, help: str, values: float | dict[str, int] | dict[str, bool], label: str = "") -> None:
        self.head(name, "gauge", help)
        self._series(name, values, label)

    def counter(self, name: str, help: str, values: float | dict[str, int], label: str = "") -> None:
        self.head(f"{name}_total", "counter", help)
        self._series(f"{name}_total", values, label)

    def _series(self, name: str, values: float | dict[str, int] | dict[str, bool], label: str) -> None:
        if not isinstance(values, dict):
            self.lines.append(f"vllm:{name}{{{self.labels}}} {float(values)}")
            return
        for value, number in values.items():
            self.lines.append(f'vllm:{name}{{{self.labels},{label}="{value}"}} {float(number)}')


def escape(value: str) -> str:
    """A label value as the text format wants it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
