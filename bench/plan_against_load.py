"""What `failsoft plan` predicts beside what real processes do: `python -m bench.plan_against_load` (`--help`).

Both get the same requests at the same times: the planner in virtual time, and the gateway in a process of its own
before simulated boxes in theirs (the same model of vLLM's engine, in real time), asked by `failsoft load`. The engine
is made slow (`--slower`), so that what a busy machine adds is small against what is modelled. The gateway draws other
random numbers in the two, so that single requests differ; the p95s are to agree within a tenth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from backend.loadtest.statistics import quantile
from backend.planner.bill import Prices
from backend.planner.figures import QUANTILES, figures_of
from backend.planner.house import CHAT_FRAME, CONTEXT
from backend.planner.run import Run, run
from backend.planner.scenario import Option, ProviderPace, Scenario
from backend.planner.terms import adapters_of, compiled, cpu_pool, fleet_of, key_of
from backend.simulator.costs import Costs
from backend.simulator.engine_knobs import ModelKnobs
from backend.traffic.arrival import Arrival
from backend.traffic.mix import TrafficMix
from backend.traffic.schedule import schedule
from backend.traffic.trace import write_trace
from bench.servers import ROOT, Server, free_port, start
from gateway.policy.validate import read_folder

AIM = 0.1
"""How far a p95 may be off, as a share of what was measured."""
PROVIDER = ProviderPace()


def policies(folder: Path, arrivals: Sequence[Arrival], boxes: dict[str, str], provider: str, slots: int) -> Path:
    """A folder with everybody who asks, and the boxes by name and URL."""
    (folder / "customers").mkdir(parents=True)
    fleet = {
        "fleets": {
            "main": {"base_model": "base", "boxes": {n: {"url": u, "max_loras": slots} for n, u in boxes.items()}}
        },
        "providers": {"hosted": {"model": "openai/gpt-4o-mini", "api_base": f"{provider}/v1", "api_key": "${ANY_KEY}"}},
    }
    (folder / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    (folder / "defaults.yaml").write_text("defaults:\n  fallback:\n    - provider: hosted\n")
    models = {one.customer: one.model for one in arrivals}
    for customer, model in models.items():
        digest = hashlib.sha256(key_of(customer).encode()).hexdigest()
        rules = {"customer": customer, "adapters": [model], "api_keys": [f"sha256:{digest}"]}
        (folder / "customers" / f"{customer}.yaml").write_text(yaml.safe_dump(rules))
    return folder


def slower(times: float) -> ModelKnobs:
    """The default engine, so many times slower."""
    costs = Costs()
    return ModelKnobs(
        swap_ms=costs.swap_s * 1000 * times,
        disk_load_ms=costs.disk_load_s * 1000 * times,
        prefill_tokens_per_s=costs.prefill_tokens_per_s / times,
        decode_ms=costs.step_s * 1000 * times,
        decode_ms_per_seq=costs.per_sequence_s * 1000 * times,
        decode_ms_per_adapter=costs.per_adapter_s * 1000 * times,
    )


def start_box(folder: Path, name: str, scenario: Scenario, slots: int) -> Server:
    fleet = fleet_of(scenario.policy, scenario.arrivals)
    knobs = replace(scenario.knobs, max_cpu_loras=cpu_pool(scenario.policy, fleet, Option(1, slots)))
    port = free_port()
    command = [sys.executable, "-m", "backend.simulator", "--port", str(port), "--name", name]
    command += ["--tokens", str(scenario.longest_answer + 1), "--max-loras", str(slots), "--journal", "10"]
    command += ["--max-model-len", str(max(CONTEXT, scenario.longest + CHAT_FRAME))]
    for option, value in ((field, getattr(knobs, field)) for field in knobs.__dataclass_fields__):
        if value is not None:
            command += [f"--{option.replace('_', '-')}", str(value)]
    for adapter in adapters_of(scenario.policy, fleet):
        command += ["--adapter", adapter]
    return start(name, command, port, "/health", folder)


def start_provider(folder: Path, scenario: Scenario) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "backend.simulator.provider", "--port", str(port)]
    command += ["--ttft-ms", str(PROVIDER.ttft_s * 1000), "--itl-ms", str(PROVIDER.itl_s * 1000)]
    command += ["--tokens", str(scenario.longest_answer + 1), "--journal", "10"]
    return start("provider", command, port, "/health", folder)


def start_gateway(folder: Path, rules: Path) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "gateway.cli", "serve", "--policies", str(rules), "--port", str(port)]
    command += ["--state", str(folder / "state")]
    return start("gateway", command, port, "/readyz", folder, ANY_KEY="any")


def load(scenario: Scenario, url: str, folder: Path) -> dict[str, Any]:
    """The report of `failsoft load`, which replays the very same requests. Raises CalledProcessError."""
    trace, keys = folder / "trace.jsonl", folder / "keys.yaml"
    write_trace(trace, scenario.arrivals)
    keys.write_text(yaml.safe_dump({name: key_of(name) for name in scenario.policy.customers}))
    command = [sys.executable, "-m", "gateway.cli", "load", "--url", url, "--trace", str(trace), "--keys", str(keys)]
    command += ["--warm-up", f"{scenario.warm_up_s:g}s", "--patience", "5m", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def swaps_of(boxes: dict[str, str]) -> int:
    """What the simulated boxes say themselves."""
    total = 0
    for url in boxes.values():
        with urllib.request.urlopen(f"{url}/simulator/state", timeout=10) as answer:
            total += msgspec.json.decode(answer.read())["engine"]["swaps"]
    return total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plan_against_load", description=__doc__.splitlines()[0])
    parser.add_argument("--requests-per-minute", type=float, default=150.0)
    parser.add_argument("--customers", type=int, default=40)
    parser.add_argument("--zipf", type=float, default=1.0)
    parser.add_argument("--boxes", type=int, default=2)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--warm-up", type=float, default=60.0)
    parser.add_argument("--slower", type=float, default=4.0, help="so many times slower than the default engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    mix = TrafficMix.model_validate(
        {
            "zipf": options.zipf,
            "adapters": options.customers,
            "requests_per_minute": options.requests_per_minute,
            "prompt_tokens": {"uniform": [100, 500]},
            "output_tokens": {"uniform": [100, 400]},
            "duration": f"{options.seconds:g}s",
            "warm_up": f"{options.warm_up:g}s",
        }
    )
    arrivals = schedule(mix, options.seed)
    with tempfile.TemporaryDirectory() as name, ExitStack() as ending:
        folder = Path(name)
        nowhere = {f"box-{n + 1}": f"http://127.0.0.1:{n + 1}" for n in range(options.boxes)}
        rules = policies(folder / "planned", arrivals, nowhere, "http://127.0.0.1:9", options.slots)
        scenario = Scenario(
            "as it is",
            arrivals,
            mix.length_s,
            mix.warm_up,
            compiled(read_folder(rules)),
            slower(options.slower),
            PROVIDER,
            seed=options.seed,
        )
        option = Option(options.boxes, options.slots)
        began = time.monotonic()
        planned = run(scenario, option)
        took_s = time.monotonic() - began
        boxes = {}
        for box in nowhere:
            server = start_box(folder, box, scenario, options.slots)
            ending.callback(server.stop)
            boxes[box] = server.url
        provider = start_provider(folder, scenario)
        ending.callback(provider.stop)
        gateway = start_gateway(folder, policies(folder / "real", arrivals, boxes, provider.url, options.slots))
        ending.callback(gateway.stop)
        report = load(scenario, gateway.url, folder)
        swaps = swaps_of(boxes)
    found = compare(planned, report, swaps)
    requests = report["overall"]["requests"]
    if options.json:
        json.dump(
            {"figures": found, "planned_in_s": took_s, "requests": requests, "client": report["client"]},
            sys.stdout,
            indent=1,
        )
        print()
    else:
        late_ms = report["client"]["late_ms"]
        print(f"{requests} requests counted; the plan took {took_s:.1f} s, the measurement {mix.length_s:.0f} s")
        print(
            f"requests left late by p50 {late_ms['p50']:.0f} ms, p99 {late_ms['p99']:.0f} ms: so busy was the machine"
        )
        print(f"{'':20}{'predicted':>12}{'measured':>12}{'off by':>10}")
        for name, one in found.items():
            off = "" if one["off"] is None else f"{one['off']:+.1%}"
            print(f"{name:20}{one['predicted']:12.4f}{one['measured']:12.4f}{off:>10}")
    sys.exit(any(abs(found[name]["off"] or 0.0) > AIM for name in ("ttft p95, s", "end p95, s")))


def compare(planned: Run, report: dict[str, Any], swaps: int) -> dict[str, dict[str, Any]]:
    """``off``: the prediction's error as a share of what was measured; None where that is next to nothing."""
    overall, found = report["overall"], figures_of(planned, Prices())
    answered = [one for one in planned.counted if not one.failed and not one.refused]
    pairs: dict[str, tuple[float, float]] = {}
    for name, mine, curve in (
        ("ttft", [one.ttft_s for one in answered], report["curves"]["ttft_ms"]),
        ("end", [one.e2e_s for one in answered], report["curves"]["e2e_ms"]),
    ):
        for q in QUANTILES:
            pairs[f"{name} p{q * 100:g}, s"] = quantile(sorted(mine), q), quantile(curve, q) / 1000
    pairs["degraded"] = found.degraded_share, overall["degraded_share"]
    pairs["errors"] = found.failed, overall["errors"] / overall["requests"]
    pairs["swaps, warm-up too"] = planned.samples[-1].swaps, swaps
    return {
        name: {"predicted": ours, "measured": real, "off": (ours - real) / real if real > 1e-3 else None}
        for name, (ours, real) in sorted(pairs.items())
    }


if __name__ == "__main__":
    main()
