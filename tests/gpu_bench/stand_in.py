"""Stands in for an interpreter that has vLLM: takes its command line and serves as a simulated box with LoRA slots.

What it has not got ends it, so that the benchmark can be shown a server that does not start.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def values(flag: str) -> list[str]:
    """What follows the last of ``flag``."""
    if flag not in sys.argv:
        return []
    rest = sys.argv[len(sys.argv) - sys.argv[::-1].index(flag) :]
    ends = [number for number, argument in enumerate(rest) if argument.startswith("--")]
    return rest[: ends[0]] if ends else rest


if "--no-such-flag" in sys.argv:
    sys.exit("error: unrecognized arguments: --no-such-flag")
if "--no-such-engine" in sys.argv:
    front = "(EngineCore pid=7) ERROR 11-26 18:00:00 [core.py:1100]"
    for line in ("EngineCore failed to start.", "Traceback (most recent call last):"):
        print(front, line)
    print(front, "RuntimeError: Failed to infer device type")
    print("(APIServer pid=6) Traceback (most recent call last):", *["  File x"] * 25, sep="\n")
    sys.exit("RuntimeError: Engine core initialization failed. See root cause above.")
names = [module.partition("=")[0] for module in values("--lora-modules")] or values("--served-model-name")[1:]
command = [sys.executable, "-m", "backend.simulator", "--port", *values("--port"), "--tokens", "64"]
command += ["--max-loras", *(values("--max-loras") or [str(len(names))])]
if "--enable-lora" in sys.argv:
    command += ["--faithful", "--max-cpu-loras", *values("--max-cpu-loras")]
else:
    command += ["--ttft-ms", "5", "--itl-ms", "2"]
print("INFO Model loading took 15.25 GiB memory and 1.5 seconds", flush=True)
print("INFO GPU KV cache size: 412,336 tokens, 50.33x", flush=True)
os.chdir(ROOT)
os.environ["PYTHONPATH"] = str(ROOT)
os.environ.pop("PYTHONSAFEPATH", None)
os.execv(sys.executable, [*command, *(part for name in names for part in ("--adapter", name))])
