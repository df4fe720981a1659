"""The field report's table on a GPU: `python -m bench.gpu --folder DIR --python PATH` (`--help`).

Makes a model of random weights and its adapters, starts vLLM and the gateway, and measures section by section. What was
measured is kept in the folder and not measured again, so that a machine that is lent for minutes can be used in several
calls. Where vLLM or a GPU is missing it says so; docs/evidence.md says what each figure is.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Final

from backend.installed_vllm import NoVllm, find_vllm
from backend.launch import ENGINE_PYTHON
from bench.gpu.boxes import NO_GPU, gpu_is_here
from bench.gpu.kept import Kept
from bench.gpu.measuring import Measuring
from bench.gpu.settings import SECTIONS, Settings
from bench.gpu.shape import LLAMA_3_1_8B, SHAPES
from bench.gpu.table import COLUMNS, notes, rows, text

MEASURED, WRONG, MISUSE, UNREACHABLE = 0, 1, 2, 3
STARTS_WITHIN_S: Final = {"gpu": 420.0, "cpu": 180.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns an exit code: 1 where a section failed, 2 for misuse, 3 without vLLM or a GPU."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {what}", file=sys.stderr, flush=True)

    try:
        version = options.vllm_version or find_vllm(options.python, None).version
    except NoVllm as error:
        print(error, file=sys.stderr)
        return UNREACHABLE
    settings = _settings(options, version)
    if problems := settings.problems():
        parser.error("; ".join(problems))
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(folder / "measurements.json")
    wanted = [section for section in SECTIONS if not options.only or section in options.only]
    if not options.again:
        wanted = [section for section in wanted if kept.get(section, settings) is None]
    if wanted and settings.device == "gpu" and not gpu_is_here():
        print(NO_GPU, file=sys.stderr)
        return UNREACHABLE
    within_s = options.start_within or STARTS_WITHIN_S[settings.device]
    python = str(options.python.absolute())  # not resolved: a virtual environment is found by the path of its link
    failed = bool(wanted) and not Measuring(settings, folder, python, within_s, kept, say).measure(wanted)
    measured = kept.all(settings)
    table = rows(settings, measured)
    print(text(table))
    print("\n".join(["", *notes(settings, measured)]))
    if options.json is not None:
        document = {"settings": asdict(settings), "columns": COLUMNS, "rows": table, "sections": measured}
        options.json.write_text(json.dumps(document | {"notes": notes(settings, measured)}, indent=1) + "\n")
    return WRONG if failed else MEASURED


def _leave(number: int, frame: FrameType | None) -> None:
    """So that everything that was started is ended on the way out."""
    signal.signal(number, signal.SIG_IGN)  # a second one would cut the ending short
    raise SystemExit(128 + number)


def _settings(options: argparse.Namespace, version: str) -> Settings:
    shape = SHAPES[options.shape]

    def given(name: str, usual: Any) -> Any:
        value = getattr(options, name)
        return usual if value is None else value

    return Settings(
        shape=shape.name,
        adapters=given("adapters", shape.adapters),
        rank=options.rank,
        boxes=options.boxes,
        max_loras=given("max_loras", shape.max_loras),
        max_cpu_loras=given("max_cpu_loras", shape.max_cpu_loras),
        max_lora_rank=options.max_lora_rank,
        max_model_len=given("max_model_len", shape.context),
        gpu_memory_utilization=options.gpu_memory_utilization,
        requests_per_minute=options.requests_per_minute,
        seconds=options.seconds,
        warm_up=options.warm_up,
        input_tokens=given("input_tokens", shape.input_tokens),
        output_tokens=given("output_tokens", shape.output_tokens),
        zipf=options.zipf,
        seed=options.seed,
        singles=options.singles,
        single_tokens=options.single_tokens,
        vllm=version,
        device=given("device", "gpu" if shape is LLAMA_3_1_8B else "cpu"),
        extra=tuple(shlex.split(options.extra)),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="The field report's table, on a GPU.")
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="where model, adapters, logs and measurements are kept")
    add("--python", type=Path, default=ENGINE_PYTHON, help="an interpreter that has vLLM")
    add("--vllm-version", help="its release, where it does not say so itself")
    add("--shape", choices=SHAPES, default=LLAMA_3_1_8B.name)
    add("--device", choices=("gpu", "cpu"), help="where vLLM runs; of the tiny shape a CPU")
    add("--only", action="append", choices=SECTIONS, help="measure this section only; repeatable")
    add("--again", action="store_true", help="measure anew what the folder has already")
    add("--json", type=Path, metavar="FILE", help="write table and figures")
    add("--adapters", type=int)
    add("--rank", type=int, default=16)
    add("--boxes", type=int, default=1, help="servers, a GPU each")
    add("--max-loras", type=int)
    add("--max-cpu-loras", type=int)
    add("--max-lora-rank", type=int, default=16)
    add("--max-model-len", type=int)
    add("--gpu-memory-utilization", type=float, default=0.9)
    add("--requests-per-minute", type=float, default=600.0)
    add("--seconds", type=float, default=60.0, help="of the load that is measured")
    add("--warm-up", type=float, default=15.0, help="seconds of the load before that")
    add("--input-tokens", type=int)
    add("--output-tokens", type=int)
    add("--zipf", type=float, default=1.0)
    add("--seed", type=int, default=1)
    add("--singles", type=int, default=50, help="pairs of single requests for each cost")
    add("--single-tokens", type=int, default=16, help="tokens of their answers")
    add("--start-within", type=float, metavar="SECONDS", help="the longest that vLLM may take to start")
    add("--extra", default="", metavar="FLAGS", help="more of vLLM's flags: --extra=--enforce-eager")
    return parser


if __name__ == "__main__":
    sys.exit(main())
