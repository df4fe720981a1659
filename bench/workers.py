"""What more workers bring, and what sharing one table costs: one process beside ``--workers N``, in one run.

    python -m bench.workers [--workers 2] [--rounds 5] [--clients 2] [--json]

The gateways take turns before the same two upstreams. CPU is that of all of a gateway's processes, its watcher too, an
answer; it hardly depends on what else the machine does. Requests a second do: clients and upstreams have to have cores
of their own for them to say more of the gateway than of the machine, and the number of cores is printed for that.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.proc import cpu_s
from bench.servers import Server, start_failsoft, start_upstream


def measure(server: Server, key: str, options: argparse.Namespace) -> tuple[float, float]:
    """Answers a second, and CPU microseconds an answer. Raises SystemExit where an answer was wrong."""
    command = [sys.executable, "-m", "bench.client", server.url, "--key", key, "--seconds", str(options.seconds)]
    command += ["--connections", str(options.connections), "--chunks", "0"]
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(options.clients)]
    outputs = [client.stdout for client in clients if client.stdout is not None]
    for output in outputs:
        output.readline()
    before = cpu_s(server.process.pid)
    counted = [json.loads(output.readline() or "{}") for output in outputs]
    after = cpu_s(server.process.pid)
    for client in clients:
        client.wait()
    if not all(found.get("answers") and not found.get("wrong") for found in counted):
        raise SystemExit(f"{server.name} gave wrong answers, or none: {counted}")
    answers = sum(found["answers"] for found in counted)
    return sum(found["answers"] / found["seconds"] for found in counted), (after - before) / answers * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=2, help="processes that ask")
    parser.add_argument("--connections", type=int, default=32, help="of each of them")
    parser.add_argument("--seconds", type=float, default=2.0, help="a round")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    key = f"fs-{secrets.token_urlsafe(12)}"
    started: list[Server] = []
    rounds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="failsoft-bench-") as name:
        folder = Path(name)
        try:
            started += [start_upstream(folder, "first upstream"), start_upstream(folder, "second upstream")]
            urls = [server.url for server in started]
            gateways = [
                start_failsoft(folder, urls, key, "--workers", str(count), name=f"{count} workers")
                for count in (1, options.workers)
            ]
            started += gateways
            for number in range(options.rounds):
                for server in gateways if number % 2 == 0 else reversed(gateways):
                    rounds.setdefault(server.name, []).append(measure(server, key, options))
        finally:
            for server in reversed(started):
                server.stop()
    medians = {
        name: (statistics.median(rate for rate, _ in found), statistics.median(cost for _, cost in found))
        for name, found in rounds.items()
    }
    one, several = medians["1 workers"], medians[f"{options.workers} workers"]
    ratios = {"requests_per_second": several[0] / one[0], "cpu_us_request": several[1] / one[1]}
    if options.json:
        found = {"cores": os.cpu_count(), "rounds": rounds, "medians": medians, "ratios": ratios}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for name, (rate, cost) in medians.items():
        sys.stdout.write(f"{name}: {rate:,.0f} requests/s, {cost:.1f} µs of CPU a request\n")
    sys.stdout.write(
        f"{options.workers} workers over one: requests/s x {ratios['requests_per_second']:.2f}, "
        f"CPU a request x {ratios['cpu_us_request']:.2f} ({os.cpu_count()} cores for gateway, clients and upstreams)\n"
    )


if __name__ == "__main__":
    main()
