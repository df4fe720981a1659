"""What the gateway costs, beside the bare upstream and vllm-router, all in one run on one machine.

    python -m bench.gateway [--rounds 3] [--connections 32] [--chunks 100] [--json]

The same client asks each server in turn, round after round, so that what else the machine does falls on all alike.
Printed are medians over the rounds. CPU is user and system time of the server and its children from /proc, divided
by the answers, or of streams by the frames (what a stream costs besides its frames is spread over them). Requests a
second depend on what the client and the upstreams leave of the machine; CPU hardly does.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.proc import cpu_s
from bench.servers import Server, Skipped, start_failsoft, start_router, start_upstream


@dataclass(slots=True)
class Figures:
    """One server's rounds: answers a second, and CPU microseconds an answer and a frame."""

    per_second: list[float] = field(default_factory=list)
    cpu_us_request: list[float] = field(default_factory=list)
    cpu_us_chunk: list[float] = field(default_factory=list)
    streams_per_second: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(getattr(self, name)) for name in self.__slots__}


class Failed(Exception):
    """An answer was not what it had to be: figures of wrong answers are worth nothing."""


def measure(
    server: Server, key: str, *, seconds: float, connections: int, chunks: int
) -> tuple[dict[str, float], float]:
    """One round: what the client counted, and the CPU seconds that the server took meanwhile."""
    command = [sys.executable, "-m", "bench.client", server.url, "--key", key, "--seconds", str(seconds)]
    command += ["--connections", str(connections), "--chunks", str(chunks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()
        before = cpu_s(server.process.pid)
        line = client.stdout.readline()
        after = cpu_s(server.process.pid)
    if not line:
        raise Failed(f"{server.name}: the client ended early")
    counted = json.loads(line)
    if counted["wrong"] or not counted["answers"]:
        raise Failed(f"{server.name}: {counted['wrong'] or 'no answers'}")
    return counted, after - before


def compare(servers: list[Server], key: str, options: argparse.Namespace) -> dict[str, Figures]:
    """All rounds of all servers, the servers taking turns."""
    figures = {server.name: Figures() for server in servers}
    for number in range(options.rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            found = figures[server.name]
            counted, cpu = measure(server, key, seconds=options.seconds, connections=options.connections, chunks=0)
            found.per_second.append(counted["answers"] / counted["seconds"])
            found.cpu_us_request.append(cpu / counted["answers"] * 1e6)
            counted, cpu = measure(
                server, key, seconds=options.stream_seconds, connections=options.connections, chunks=options.chunks
            )
            found.streams_per_second.append(counted["answers"] / counted["seconds"])
            found.cpu_us_chunk.append(cpu / counted["frames"] * 1e6)
    return figures


def ratios(figures: dict[str, Figures]) -> dict[str, dict[str, float]]:
    """The gateway's medians divided by those of each other server."""
    own = figures["failsoft"].medians()
    return {
        f"failsoft/{name}": {key: own[key] / value if value else float("nan") for key, value in other.medians().items()}
        for name, other in figures.items()
        if name != "failsoft"
    }


def show(figures: dict[str, Figures], skipped: dict[str, str], console: Console) -> None:
    table = Table(title="medians over the rounds", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for heading in ("requests/s", "CPU µs/request", "streams/s", "CPU µs/chunk"):
        table.add_column(heading, justify="right")
    rows = {name: found.medians() for name, found in figures.items()}
    for name, row in rows.items():
        cells = (f"{row['per_second']:,.0f}", f"{row['cpu_us_request']:.1f}")
        table.add_row(name, *cells, f"{row['streams_per_second']:.1f}", f"{row['cpu_us_chunk']:.1f}")
    table.add_section()
    for name, row in ratios(figures).items():
        keys = ("per_second", "cpu_us_request", "streams_per_second", "cpu_us_chunk")
        table.add_row(name, *(f"× {row[key]:.2f}" for key in keys))
    console.print(table)
    for name, reason in skipped.items():
        console.print(f"{name} took no part: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0, help="of plain requests, a round")
    parser.add_argument("--stream-seconds", type=float, default=3.0, help="of streams, a round")
    parser.add_argument("--chunks", type=int, default=100, help="a stream")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    console = Console(stderr=options.json, highlight=False)
    key = f"fs-{secrets.token_urlsafe(12)}"
    skipped: dict[str, str] = {}
    servers: list[Server] = []
    others: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="failsoft-bench-") as name:
        folder = Path(name)
        try:
            servers.append(start_upstream(folder, "bare"))
            others.append(start_upstream(folder, "second upstream"))
            urls = [servers[0].url, others[0].url]
            servers.append(start_failsoft(folder, urls, key))
            try:
                servers.append(start_router(folder, urls))
            except Skipped as reason:
                skipped["vllm-router"] = str(reason)
            names = ", ".join(server.name for server in servers)
            console.print(f"{names}: {options.rounds} rounds, {options.connections} connections")
            figures = compare(servers, key, options)
        except (Failed, Skipped) as error:
            console.print(f"[bold red]the benchmark failed:[/] {error}")
            raise SystemExit(1) from None
        finally:
            for server in (*reversed(servers), *others):
                server.stop()
    if options.json:
        found = {name: {key: getattr(f, key) for key in f.__slots__} for name, f in figures.items()}
        report = {"rounds": found, "medians": {n: f.medians() for n, f in figures.items()}, "ratios": ratios(figures)}
        sys.stdout.write(json.dumps(report | {"skipped": skipped}, indent=2) + "\n")
    else:
        show(figures, skipped, console)


if __name__ == "__main__":
    main()
