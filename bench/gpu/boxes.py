"""vLLM's servers as the benchmark needs them: three kinds, on GPUs or, for its own test, on a CPU."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backend.box_process import BoxProcess
from backend.launch import BASE_MODEL, CPU_ENVIRONMENT, free_port, wait_for_a_token
from backend.serve_plan import ServePlan, VllmCommand, by_interpreter
from backend.vllm_flags import release
from bench.gpu.settings import Kind, Settings
from gateway.policy.engine_options import EngineOptions

_HOST: Final = "127.0.0.1"
_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Box:
    """A server that gives tokens."""

    process: BoxProcess
    url: str


def command(
    kind: Kind, settings: Settings, *, python: str, base: Path, adapters: Mapping[str, Path], port: int, number: int
) -> VllmCommand:
    """How a server of that kind is started. The one without LoRA answers to the adapters' names too, so that the very
    same load can be put on it. ``number``: of the box, and of its GPU where there are several."""
    extra = ["--load-format", "dummy", *(["--enforce-eager"] if settings.device == "cpu" else ()), *settings.extra]
    pool = {"shared": settings.max_cpu_loras, "small-pool": settings.max_loras, "base-alone": 0}[kind]
    if kind == "base-alone":
        extra += ["--served-model-name", BASE_MODEL, *adapters]
    plan = ServePlan(
        model=str(base),
        served_name=BASE_MODEL,
        host=_HOST,
        port=port,
        adapters={} if kind == "base-alone" else {name: str(path) for name, path in adapters.items()},
        max_loras=0 if kind == "base-alone" else settings.max_loras,
        max_cpu_loras=pool,
        max_lora_rank=settings.max_lora_rank,
        options=EngineOptions(
            max_model_len=settings.max_model_len,
            gpu_memory_utilization=settings.gpu_memory_utilization if settings.device == "gpu" else None,
            dtype="bfloat16" if settings.device == "gpu" else "float32",
            extra=extra,
        ),
    )
    found = by_interpreter(python, plan, release(settings.vllm))
    more: dict[str, str] = {}
    if settings.device == "cpu":
        more |= CPU_ENVIRONMENT
    elif settings.boxes > 1:
        more["CUDA_VISIBLE_DEVICES"] = str(number)
    return replace(found, environment={**found.environment, **more})


@contextmanager
def running(
    kind: Kind,
    settings: Settings,
    *,
    python: str,
    base: Path,
    adapters: Mapping[str, Path],
    logs: Path,
    within_s: float,
    say: Callable[[str], None],
) -> Iterator[list[Box]]:
    """All servers of that kind, ready, and ended with the block. Raises BoxError with the end of a log."""
    began = time.monotonic()
    count = 1 if kind == "small-pool" else settings.boxes
    with ExitStack() as ending:
        boxes = []
        for number in range(count):
            port = free_port()
            log = logs / f"{kind}-{number}.log"
            log.unlink(missing_ok=True)
            asked = command(kind, settings, python=python, base=base, adapters=adapters, port=port, number=number)
            (logs / f"{kind}-{number}.command").write_text(" ".join(asked.arguments) + "\n")
            process = ending.enter_context(BoxProcess(f"the {kind} server {number}", asked, log=log))
            process.start()
            boxes.append(Box(process, f"http://{_HOST}:{port}"))
        say(f"starts {count} {kind} server{'' if count == 1 else 's'}, at most {within_s:.0f} s; log: {log}")
        for box in boxes:
            wait_for_a_token(box.process, box.url, BASE_MODEL, max(0.0, began + within_s - time.monotonic()))
        say(f"{kind}: up after {time.monotonic() - began:.0f} s")
        yield boxes


def told_memory(log: str) -> dict[str, float | None]:
    """What vLLM says of its GPU's memory: bytes that the model takes with its slots, and tokens of KV cache."""
    took = re.findall(r"Model loading took ([\d.]+) Gi?B", log)
    tokens = re.findall(r"KV cache size: ([\d,]+) tokens", log)
    return {
        "model_bytes": float(took[-1]) * _GIB if took else None,
        "kv_cache_tokens": float(tokens[-1].replace(",", "")) if tokens else None,
    }
