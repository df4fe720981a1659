"""The table of the field report, in simulation: 40 customers on two shared boxes, and one of them on a box of its own.

    python -m bench.field_report [--seconds 30] [--html FILE]

Boxes are `failsoft simulate-box --faithful`: vLLM's scheduler and LoRA slots at the step times of an 8B on an A100, as
its knobs have them, not a GPU. So the table shows what sharing costs in queueing and swaps by that model; the figures
of a real box are `failsoft load`'s against one. Traffic: 600 requests a minute by Zipf's law, 256 tokens out of 256,
streamed, open loop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.servers import ROOT, Server, Skipped, free_port, start, start_gateway

CUSTOMERS: Final = 40
PER_MINUTE: Final = 600
TOKENS: Final = 256


def main() -> None:
    parser = argparse.ArgumentParser(description="The field report's table, in simulation.")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--html", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        try:
            _perform(Path(name), options.seconds, options.html)
        except Skipped as why:
            print(f"skipped: {why}")


def _perform(folder: Path, seconds: int, html: Path | None) -> None:
    names = [f"customer-{n:02}" for n in range(1, CUSTOMERS + 1)]
    (folder / "keys.yaml").write_text("".join(f"{n}: {{key: key-{n}, model: {n}_v1}}\n" for n in names))
    most = PER_MINUTE / sum(1 / rank for rank in range(1, CUSTOMERS + 1))
    servers: list[Server] = []
    try:
        alone = _box(folder, "alone", [f"{names[0]}_v1"])
        servers.append(alone)
        load = [sys.executable, "-m", "gateway.cli", "load", "--keys", str(folder / "keys.yaml"), "--seed", "1"]
        load += ["--warm-up", "5s", "--duration", f"{seconds}s"]
        _write_mix(folder / "alone.yaml", f"customers: {{{names[0]}: 1}}")
        command = [*load, "--url", alone.url, "--traffic", str(folder / "alone.yaml"), "--rate", f"{most:.1f}"]
        command += ["--json", "--out", str(folder / "alone.json")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        servers.pop().stop()
        boxes = [_box(folder, name, [f"{n}_v1" for n in names]) for name in ("a", "b")]
        servers += boxes
        servers.append(start_gateway(folder, [box.url for box in boxes], {name: f"{name}_v1" for name in names}))
        _write_mix(folder / "shared.yaml", "zipf: 1.0")
        command = [*load, "--url", servers[-1].url, "--traffic", str(folder / "shared.yaml"), "--rate", str(PER_MINUTE)]
        command += ["--beside", str(folder / "alone.json"), *([] if html is None else ["--html", str(html.absolute())])]
        command += [option for box in boxes for option in ("--box", box.url)]
        subprocess.run(command, check=True, cwd=ROOT)
    finally:
        for server in reversed(servers):
            server.stop()


def _write_mix(path: Path, who: str) -> None:
    path.write_text(json.dumps({"prompt_tokens": TOKENS, "output_tokens": TOKENS})[:-1] + f", {who}}}\n")


def _box(folder: Path, name: str, adapters: list[str]) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "backend.simulator", "--port", str(port), "--name", name, "--faithful"]
    command += ["--max-loras", "8", "--max-cpu-loras", "64", "--tokens", str(TOKENS)]
    return start(name, [*command, *(part for one in adapters for part in ("--adapter", one))], port, "/health", folder)


if __name__ == "__main__":
    main()
