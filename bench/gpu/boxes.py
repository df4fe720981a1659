"""vLLM's servers as the benchmark needs them: three kinds, on GPUs or, for its own test, on a CPU."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backend.box_process import BoxError, BoxProcess
from backend.diagnosis import diagnose
from backend.launch import BASE_MODEL, CPU_ENVIRONMENT, free_port, wait_for_a_token
from backend.serve_plan import ServePlan, VllmCommand, by_interpreter
from backend.vllm_flags import release
from bench.gpu.settings import Kind, Settings
from gateway.policy.engine_options import EngineOptions

_HOST: Final = "127.0.0.1"
_GIB: Final = 1024**3
_DEVICES: Final = ("nvidia[0-9]*", "kfd", "dxg")
"""What a GPU's driver has in /dev: NVIDIA's, AMD's, and Windows' for Linux."""
_MOST_QUOTED: Final = 30
"""Lines of an error. A traceback's last ones say what it was."""
NO_GPU: Final = (
    "no GPU here: use `--shape tiny --device cpu`, which shows that all of it works, or a machine that has one"
)


class DidNotStart(BoxError):
    """A server that gives no tokens. ``recurs``: one of another kind, or a further try, would end the same way."""

    def __init__(self, message: str, *, recurs: bool) -> None:
        super().__init__(message)
        self.recurs = recurs


def gpu_is_here(devices: Path = Path("/dev")) -> bool:
    """Whether a driver of a GPU shows one. What vLLM would find takes its import, and half a minute."""
    return any(any(devices.glob(pattern)) for pattern in _DEVICES)


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
    """All servers of that kind, ready, and ended with the block. Raises DidNotStart with what a log says."""
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
            try:
                wait_for_a_token(box.process, box.url, BASE_MODEL, max(0.0, began + within_s - time.monotonic()))
            except BoxError as error:
                raise _told(box.process, error) from error
        say(f"{kind}: up after {time.monotonic() - began:.0f} s")
        yield boxes


def _told(process: BoxProcess, error: BoxError) -> DidNotStart:
    """What ``error`` says, with the cause: the log of a server whose engine failed ends with "See root cause above"."""
    log = process.log.read_text(errors="replace") if process.log.exists() else ""
    lines = [str(error)]
    if block := first_error(log):
        lines += ["the first error in it:", block]
    known = diagnose(log, 0)
    if known is not None:
        lines.append(f"{known.cause}: {known.advice}")
    return DidNotStart("\n".join(lines), recurs=known is None or known.lasting)


def first_error(log: str) -> str:
    """The first block of lines that vLLM logged as an error, without what stands in front of each."""
    block: list[str] = []
    for line in log.splitlines():
        found = re.match(r"(?:\(.{1,80}?\) )?ERROR \d\d-\d\d [\d:]{8} (?:\[.{1,80}?\] ?)?(.*)", line)
        if found:
            block.append(found[1])
        elif block:
            break
    if len(block) > _MOST_QUOTED:
        block = [*block[:1], "…", *block[2 - _MOST_QUOTED :]]
    return "\n".join(block)


def told_memory(log: str) -> dict[str, float | None]:
    """What vLLM says of its GPU's memory: bytes that the model takes with its slots, and tokens of KV cache."""
    took = re.findall(r"Model loading took ([\d.]+) Gi?B", log)
    tokens = re.findall(r"KV cache size: ([\d,]+) tokens", log)
    return {
        "model_bytes": float(took[-1]) * _GIB if took else None,
        "kv_cache_tokens": float(tokens[-1].replace(",", "")) if tokens else None,
    }
