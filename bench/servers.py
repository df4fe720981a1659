"""What is compared: how each server is started in front of the same two upstreams."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backend.box_process import tie_to_parent

ROOT: Final = Path(__file__).parent.parent
ROUTER_VENV: Final = ROOT / ".cache" / "bench-venv"
ROUTER_PINS: Final = ROOT / "bench" / "router.txt"
STARTS_WITHIN_S: Final = 60.0


class Skipped(Exception):
    """This server cannot take part; the message says why."""


@dataclass(slots=True)
class Server:
    """A process under load. ``pids``: all whose CPU time is its cost."""

    name: str
    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it, the hard way if it does not listen."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_upstream(folder: Path, name: str) -> Server:
    """The bare upstream."""
    port = free_port()
    return start(name, [sys.executable, "-m", "bench.upstream", str(port)], port, "/health", folder)


def start_failsoft(folder: Path, upstreams: list[str], key: str, *options: str, name: str = "failsoft") -> Server:
    """The gateway as it comes, with authentication, policy and metrics on; ``options`` of its command beside that."""
    folder = folder / name
    policies = folder / "policies"
    (policies / "customers").mkdir(parents=True)
    boxes = "\n".join(
        f'      box-{n}: {{url: "{url}", max_loras: 8, max_cpu_loras: 64}}' for n, url in enumerate(upstreams)
    )
    (policies / "fleet.yaml").write_text(f"fleets:\n  main:\n    base_model: base\n    boxes:\n{boxes}\n")
    (policies / "defaults.yaml").write_text('defaults:\n  fallback:\n    - static: "Later, please."\n')
    for number in range(40):
        customer, secret = ("bench", key) if number == 0 else (f"other-{number}", f"{key}-{number}")
        (policies / "customers" / f"{customer}.yaml").write_text(
            f"customer: {customer}\nadapters: [customer_{customer}_v1]\n"
            f'api_keys: ["sha256:{hashlib.sha256(secret.encode()).hexdigest()}"]\n'
        )
    port = free_port()
    command = [sys.executable, "-m", "gateway.cli", "serve", "--policies", str(policies)]
    command += ["--state", str(folder / "state"), "--port", str(port), *options]
    return start(name, command, port, "/readyz", folder)


def start_gateway(
    folder: Path, upstreams: list[str], customers: dict[str, str], *, slots: int = 8, pool: int = 64
) -> Server:
    """The gateway before so many boxes, with no fallback. ``customers``: each one's adapter; its key is key-NAME.

    ``slots``, ``pool``: adapters that each box holds in its slots and in main memory.
    """
    policies = folder / "policies"
    (policies / "customers").mkdir(parents=True)
    boxes = "\n".join(
        f'      box-{n}: {{url: "{url}", max_loras: {slots}, max_cpu_loras: {pool}}}' for n, url in enumerate(upstreams)
    )
    (policies / "fleet.yaml").write_text(f"fleets:\n  main:\n    base_model: base\n    boxes:\n{boxes}\n")
    (policies / "defaults.yaml").write_text("defaults:\n  fallback: []\n")
    for customer, adapter in customers.items():
        (policies / "customers" / f"{customer}.yaml").write_text(
            f"customer: {customer}\nadapters: [{adapter}]\n"
            f'api_keys: ["sha256:{hashlib.sha256(f"key-{customer}".encode()).hexdigest()}"]\n'
        )
    port = free_port()
    command = [sys.executable, "-m", "gateway.cli", "serve", "--policies", str(policies)]
    command += ["--state", str(folder / "state"), "--port", str(port)]
    return start("gateway", command, port, "/readyz", folder)


def start_router(folder: Path, upstreams: list[str]) -> Server:
    """vllm-router, round robin over the same upstreams, its request log off. Raises Skipped."""
    program = ROUTER_VENV / "bin" / "vllm-router"
    _install_router()
    port = free_port()
    command = [str(program), "--host", "127.0.0.1", "--port", str(port), "--worker-urls", *upstreams]
    command += ["--policy", "round_robin", "--log-level", "error", "--prometheus-port", str(free_port())]
    command += ["--worker-startup-check-interval", "1"]
    return start("vllm-router", command, port, "/health", folder)


def _install_router() -> None:
    stamp = ROUTER_VENV / "installed"
    if stamp.exists() and stamp.read_text() == ROUTER_PINS.read_text():
        return
    ROUTER_VENV.parent.mkdir(exist_ok=True)
    pip = [str(ROUTER_VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    for command in ([sys.executable, "-m", "venv", str(ROUTER_VENV)], [*pip, "install", "-r", str(ROUTER_PINS)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise Skipped(f"it cannot be installed here: {last}")
    stamp.write_text(ROUTER_PINS.read_text())


def start(name: str, command: list[str], port: int, path: str, folder: Path, **environment: str) -> Server:
    """Any of them, once it answers at ``path``. Raises Skipped."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **environment},
            preexec_fn=tie_to_parent(),  # whatever ends a bench, its servers end too
        )
    server = Server(name, f"http://127.0.0.1:{port}", process)
    began = time.monotonic()
    while time.monotonic() - began < STARTS_WITHIN_S and process.poll() is None:
        try:
            with urllib.request.urlopen(server.url + path, timeout=1) as answer:
                if answer.status == 200:
                    return server
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    if process.poll() is None:
        server.stop()
    raise Skipped(f"it did not start:\n{log.read_text(errors='replace')[-2000:]}")
