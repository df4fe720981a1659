"""Settings and measurements as the benchmark has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.gpu.settings import Settings
from bench.gpu.spread import added_ms

FIELD = Settings(
    shape="llama-3.1-8b",
    adapters=40,
    rank=16,
    boxes=2,
    max_loras=8,
    max_cpu_loras=64,
    max_lora_rank=16,
    max_model_len=8192,
    gpu_memory_utilization=0.9,
    requests_per_minute=600,
    seconds=60,
    warm_up=15,
    input_tokens=256,
    output_tokens=256,
    zipf=1.0,
    seed=1,
    singles=50,
    single_tokens=16,
    vllm="0.25.1",
    device="gpu",
)
"""As the field report's boxes were."""


def settings(**changes: Any) -> Settings:
    """Those, with changes."""
    return replace(FIELD, **changes)


def load(p50_ms: float, tokens_per_s: float, inter_ms: float, *warnings: str) -> dict[str, Any]:
    """A section of load: the parts of its report that the table reads."""
    return {
        "report": {
            "overall": {
                "requests": 600,
                "answered": 599,
                "mean_output_tokens": 256.0,
                "output_tokens_per_s": tokens_per_s,
                "e2e_ms": {"p50": p50_ms, "p99": 2 * p50_ms},
                "ttft_ms": {"p50": 20.0, "p99": 90.0},
                "inter_token_ms": {"p50": inter_ms},
            },
            "client": {"warnings": list(warnings)},
        },
        "memory": {"model_bytes": 16.6e9, "kv_cache_tokens": 412336.0},
    }


def whole() -> dict[str, dict[str, Any]]:
    """All sections."""
    slow, quick = [0.052, 0.060, 0.056], [0.016, 0.020, 0.018]
    return {
        "load": load(2400.0, 2500.0, 9.0),
        "base": load(2000.0, 2540.0, 7.5),
        "swap": {"pool": added_ms(slow, quick)},
        "disk": {"page_cache": added_ms(slow, quick), "disk": added_ms([0.3, 0.4, 0.5], quick)},
        "gateway": {"first": added_ms([0.0185], [0.018]), "whole": added_ms([0.121], [0.12]), "tokens": 16},
    }
