"""What `failsoft plan` predicts beside what real processes do: `python -m bench.plan_against_load` (`--help`).

Both get the same requests at the same times: the planner in virtual time, and the gateway in a process of its own
before simulated boxes in theirs (the same model of vLLM's engine, in real time), asked by `failsoft load`. The engine
is made slow (`--slower`), so that what a busy machine adds is small against what is modelled. Several traffics are
compared (`--seeds`), and judged together: a p95 of some hundred requests is that of its few slowest.

A measurement in which the machine was overloaded is void: it says how fast the machine was. The load test left late
then, or the servers were ready to run and had no processor (`/proc/PID/schedstat`), for longer than a part of what is
measured. It is made again, `--attempts` times at most, each time said; without one that holds the command ends with 3.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
BUSY = 0.02
"""How much of the predicted p95 to the first token the machine may add in the mean to a request's path, and at most to
the moment at which one in a hundred leaves."""
WAKES = 6
"""Until its first token is back a request wakes up the client twice, the gateway three times and a box once."""
NOTHING_MEASURED = 3
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
    command += ["--warm-up", f"{scenario.warm_up_s:g}s", "--patience", "5m", "--samples", "--json"]
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="a traffic each")
    parser.add_argument("--attempts", type=int, default=3, help="measurements of each, where the machine is busy")
    parser.add_argument("--busy", type=float, default=BUSY, help="the share of the p95 that the machine may add")
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
    option, knobs = Option(options.boxes, options.slots), slower(options.slower)
    pairs, voids = [], []
    for seed in options.seeds:
        for attempt in range(options.attempts):
            pair = measured(mix, option, knobs, seed)
            void = too_busy(pair, options.busy)
            name = f"traffic {seed}"
            if void is None:
                pairs.append(pair)
                print(lines(f"{name}: {len(pair.theirs)} requests counted", compare([pair])), file=sys.stderr)
                break
            voids.append(f"{name}, attempt {attempt + 1} is void: {void}")
            print(voids[-1], file=sys.stderr)
    if not pairs:
        print("the machine was too busy for any measurement to mean something: try again on an idle one")
        sys.exit(NOTHING_MEASURED)
    found = compare(pairs)
    if options.json:
        each = [{"figures": compare([pair]), "client": pair.report["client"], "waited": pair.waited} for pair in pairs]
        json.dump({"figures": found, "traffics": each, "void": voids}, sys.stdout, indent=1)
        print()
    else:
        print(lines(f"{len(pairs)} of {len(options.seeds)} traffics together, {len(voids)} measurements void", found))
    wrong = any(abs(found[name]["off"] or 0.0) > AIM for name in ("ttft p95, s", "end p95, s"))
    sys.exit(1 if wrong else NOTHING_MEASURED if len(pairs) < len(options.seeds) else 0)


@dataclass(frozen=True, slots=True)
class Pair:
    """One traffic, planned and measured. ``theirs``: (time to first token, end) of what was answered, in seconds.
    ``waited``: by process, the seconds for which it could not run at a wake-up, in the mean."""

    planned: Run
    report: dict[str, Any]
    theirs: list[tuple[float, float]]
    swaps: int
    waited: dict[str, float]


def measured(mix: TrafficMix, option: Option, knobs: ModelKnobs, seed: int) -> Pair:
    """The plan, then the measurement."""
    arrivals = schedule(mix, seed)
    with tempfile.TemporaryDirectory() as name, ExitStack() as ending:
        folder = Path(name)
        nowhere = {f"box-{n + 1}": f"http://127.0.0.1:{n + 1}" for n in range(option.boxes)}
        rules = policies(folder / "planned", arrivals, nowhere, "http://127.0.0.1:9", option.slots)
        scenario = Scenario(
            "as it is",
            arrivals,
            mix.length_s,
            mix.warm_up,
            compiled(read_folder(rules)),
            knobs,
            PROVIDER,
            seed=seed,
        )
        planned = run(scenario, option)
        boxes, servers = {}, []
        for box in nowhere:
            server = start_box(folder, box, scenario, option.slots)
            ending.callback(server.stop)
            boxes[box] = server.url
            servers.append(server)
        provider = start_provider(folder, scenario)
        ending.callback(provider.stop)
        gateway = start_gateway(folder, policies(folder / "real", arrivals, boxes, provider.url, option.slots))
        ending.callback(gateway.stop)
        servers.append(gateway)
        before = {one.name: waits(one.process.pid) for one in servers}
        report = load(scenario, gateway.url, folder)
        after = {one.name: waits(one.process.pid) for one in servers}
        swaps = swaps_of(boxes)
    waited = {name: (after[name][0] - before[name][0]) / max(1, after[name][1] - before[name][1]) for name in before}
    samples = report["samples"]
    theirs = [
        (first_s - at_s, end_s - at_s)
        for at_s, first_s, end_s, error in zip(
            *(samples[column] for column in ("at_s", "first_s", "end_s", "error")), strict=True
        )
        if at_s >= mix.warm_up and error is None
    ]
    return Pair(planned, report, theirs, swaps, waited)


def waits(pid: int) -> tuple[float, int]:
    """Seconds for which a process was ready and no processor was free, and how often it ran (schedstat, proc(5))."""
    _, waited_ns, times = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(waited_ns) / 1e9, int(times)


def too_busy(pair: Pair, share: float) -> str | None:
    """Why a measurement is void, if it is."""
    p95_s = quantile(sorted(one.ttft_s for one in pair.planned.counted if not one.failed), 0.95)
    most_s = share * p95_s
    added_s, late_s = WAKES * max(pair.waited.values()), pair.report["client"]["late_ms"]["p99"] / 1000
    if added_s > most_s:
        return f"servers waited for a processor, {added_s * 1000:.1f} ms a request, over {most_s * 1000:.1f}"
    if late_s > most_s:
        return f"1 in 100 requests left {late_s * 1000:.1f} ms late, over {most_s * 1000:.1f}"
    return None


def lines(head: str, found: dict[str, dict[str, Any]]) -> str:
    """A table for people."""
    rows = [head, f"{'':20}{'predicted':>12}{'measured':>12}{'off by':>10}"]
    for name, one in found.items():
        off = "" if one["off"] is None else f"{one['off']:+.1%}"
        rows.append(f"{name:20}{one['predicted']:12.4f}{one['measured']:12.4f}{off:>10}")
    return "\n".join(rows)


def compare(pairs: Sequence[Pair]) -> dict[str, dict[str, Any]]:
    """Of all requests of all ``pairs`` together. ``off``: the prediction's error as a share of what was measured; None
    where that is next to nothing."""
    ours = [
        (one.ttft_s, one.e2e_s) for pair in pairs for one in pair.planned.counted if not one.failed and not one.refused
    ]
    theirs = [one for pair in pairs for one in pair.theirs]
    figures: dict[str, tuple[float, float]] = {}
    for n, name in enumerate(("ttft", "end")):
        for q in QUANTILES:
            mine, real = (quantile(sorted(one[n] for one in some), q) for some in (ours, theirs))
            figures[f"{name} p{q * 100:g}, s"] = mine, real
    count = sum(pair.report["overall"]["requests"] for pair in pairs)
    predicted = [figures_of(pair.planned, Prices()) for pair in pairs]
    figures["degraded"] = (
        sum(one.degraded_share * one.requests for one in predicted) / count,
        sum(pair.report["overall"]["degraded"] for pair in pairs) / count,
    )
    figures["errors"] = (
        sum(one.failed * one.requests for one in predicted) / count,
        sum(pair.report["overall"]["errors"] for pair in pairs) / count,
    )
    figures["swaps, warm-up too"] = (
        sum(pair.planned.samples[-1].swaps for pair in pairs),
        sum(pair.swaps for pair in pairs),
    )
    return {
        name: {"predicted": mine, "measured": real, "off": (mine - real) / real if real > 1e-3 else None}
        for name, (mine, real) in sorted(figures.items())
    }


if __name__ == "__main__":
    main()
