"""Whether `failsoft load` measures what an independent client does: NVIDIA's aiperf, on the same trace.

    python -m bench.agreement [--requests 150] [--rounds 2] [--within 5]

Both replay the very same requests (times, prompts, lengths, to the byte of the body) in turn, through the same gateway
to the same simulated box, and are to agree on time to first token, inter-token latency, end-to-end latency and output
tokens. Exits with 1 where one of them is off by more; says why and exits with 0 where aiperf cannot be had. aiperf is
the program of FAILSOFT_AIPERF, or is installed into .cache/aiperf-venv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backend.loadtest.question import WORDS, body_of, words
from backend.traffic.arrival import Arrival
from backend.traffic.read import mix_from
from backend.traffic.schedule import schedule
from backend.traffic.trace import write_trace
from bench.servers import ROOT, Server, Skipped, free_port, start, start_failsoft

PINS: Final = ROOT / "bench" / "aiperf.txt"
VENV: Final = ROOT / ".cache" / "aiperf-venv"
KEY: Final = "fs-agreement"
MODEL: Final = "customer_bench_v1"
TOKENIZER: Final = "bench/words"
SEED: Final = 7
PATIENCE_S: Final = 300
MIX: Final = """
requests_per_minute: 300
duration: 10m
warm_up: 0s
customers: {bench: {weight: 1, model: customer_bench_v1}}
prompt_tokens: {lognormal: {median: 60, p90: 200}}
output_tokens: {uniform: [20, 60]}
"""

# Ours, and aiperf's name for the same: what is compared, in milliseconds.
TIMES: Final = {
    ("ttft_ms", "p50"): ("time_to_first_token", "p50"),
    ("ttft_ms", "p90"): ("time_to_first_token", "p90"),
    ("inter_token_ms", "p50"): ("inter_token_latency", "p50"),
    ("inter_token_ms", "p90"): ("inter_token_latency", "p90"),
    ("e2e_ms", "p50"): ("request_latency", "p50"),
    ("e2e_ms", "p90"): ("request_latency", "p90"),
}

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure as both clients have it."""

    name: str
    ours: float
    theirs: float

    @property
    def off(self) -> float:
        """Relative."""
        return abs(self.ours / self.theirs - 1)


def aiperf(*, install: bool = True) -> Path:
    """The program. Raises Skipped with the reason where it cannot be had."""
    if named := os.environ.get("FAILSOFT_AIPERF"):
        if not Path(named).exists():
            raise Skipped(f"FAILSOFT_AIPERF names {named}, which is not there")
        return Path(named)
    stamp = VENV / "installed"
    if not stamp.exists() or stamp.read_text() != PINS.read_text():
        if not install:
            raise Skipped("aiperf is not here: python -m bench.agreement installs it, or set FAILSOFT_AIPERF")
        VENV.parent.mkdir(exist_ok=True)
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        for command in ([sys.executable, "-m", "venv", str(VENV)], [*pip, "install", "-r", str(PINS)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                last = (done.stderr.strip() or "no message").splitlines()[-1]
                raise Skipped(f"aiperf cannot be installed here: {last}")
        stamp.write_text(PINS.read_text())
    return VENV / "bin" / "aiperf"


def compare(program: Path, requests: int, rounds: int) -> list[Verdict]:
    """Take turns, and hold the medians of each client's rounds against each other."""
    arrivals = schedule(mix_from(MIX, "mix"), SEED)[:requests]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_trace(folder / "trace.jsonl", arrivals)
        (folder / "keys.yaml").write_text(f"bench: {KEY}\n")
        (folder / "aiperf.jsonl").write_text("".join(_entry(one, body) for one, body in _bodies(arrivals)))
        _write_tokenizer(folder / "hub")
        servers: list[Server] = []
        try:
            servers.append(_box(folder))
            servers.append(start_failsoft(folder, [servers[0].url], KEY))
            ours, theirs = [], []
            for number in range(rounds):
                ours.append(_ours(folder, servers[1].url))
                theirs.append(_theirs(program, folder, servers[1].url, number))
        finally:
            for server in reversed(servers):
                server.stop()
    return [
        Verdict(name, statistics.median(one[name] for one in ours), statistics.median(one[name] for one in theirs))
        for name in ours[0]
    ]


def _bodies(arrivals: Sequence[Arrival]) -> list[tuple[Arrival, dict[str, object]]]:
    chance = words(SEED)
    return [(arrival, body_of(arrival, chance)) for arrival in arrivals]


def _entry(arrival: Arrival, body: dict[str, object]) -> str:
    """One line of a trace as aiperf reads it: the whole body, to be sent at that millisecond."""
    return json.dumps({"timestamp": round(arrival.at_s * 1000, 3), "payload": body}) + "\n"


def _write_tokenizer(hub: Path) -> None:
    """One of our prompts' words, as aiperf does not start without; its counts are not used, the server's are.

    In the layout of Hugging Face's cache: offline, aiperf takes no path of a tokenizer, only a name that is cached.
    """
    commit = "0" * 40
    repository = hub / f"models--{TOKENIZER.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    vocabulary = {word: number for number, word in enumerate(("[UNK]", *dict.fromkeys(WORDS)))}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    (folder / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "eos_token": "[UNK]"})
    )


def _box(folder: Path) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "backend.simulator", "--port", str(port), "--adapter", MODEL]
    command += ["--ttft-ms", "500", "--itl-ms", "25", "--tokens", "100"]
    return start("box", command, port, "/health", folder)


def _ours(folder: Path, url: str) -> Figures:
    command = [sys.executable, "-m", "gateway.cli", "load", "--url", url, "--keys", str(folder / "keys.yaml"), "--json"]
    command += ["--trace", str(folder / "trace.jsonl"), "--seed", str(SEED)]
    overall = json.loads(_output(command, folder))["overall"]
    assert overall["errors"] == 0, overall
    found: Figures = {f"{kind} {point}": overall[kind][point] for kind, point in TIMES}
    return {**found, "answers": overall["answered"], "output tokens": overall["output_tokens"]}


def _theirs(program: Path, folder: Path, url: str, number: int) -> Figures:
    out = folder / f"aiperf-{number}"
    command = [str(program), "profile", "--model", MODEL, "--url", url, "--endpoint-type", "chat", "--streaming"]
    command += ["--input-file", str(folder / "aiperf.jsonl"), "--custom-dataset-type", "mooncake_trace"]
    command += ["--fixed-schedule", "--api-key", KEY, "--tokenizer", TOKENIZER, "--use-server-token-count"]
    command += ["--output-artifact-dir", str(out), "--ui", "none", "--no-server-metrics", "--no-gpu-telemetry"]
    said = _output(command, folder)
    export = out / "profile_export_aiperf.json"
    if not export.exists():
        raise RuntimeError(f"aiperf wrote no report:\n{said[-3000:]}")
    read = json.loads(export.read_text())
    found: Figures = {
        f"{kind} {point}": read[theirs][their_point] for (kind, point), (theirs, their_point) in TIMES.items()
    }
    return {**found, "answers": read["request_count"]["avg"], "output tokens": read["total_osl"]["avg"]}


def _output(command: Sequence[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}", "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "hub")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment, cwd=folder
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description="Hold failsoft load against aiperf.")
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--within", type=float, default=5.0, help="per cent")
    options = parser.parse_args()
    try:
        program = aiperf()
    except Skipped as why:
        print(f"skipped: {why}")
        return
    verdicts = compare(program, options.requests, options.rounds)
    print(f"{'':22}{'failsoft load':>15}{'aiperf':>12}{'off':>9}")
    for one in verdicts:
        print(f"{one.name:22}{one.ours:15,.1f}{one.theirs:12,.1f}{one.off:9.2%}")
    if any(one.off > options.within / 100 for one in verdicts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
