"""Services of compose.yaml as processes of this machine: the same commands, with paths, hosts and ports of here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.deploy.compose import DEPLOY, SERVICES, health_check, hosts, words
from tests.support.processes import Process, Processes
from tests.support.redis_server import binary, free_port

PORTS = {"redis": 6379, "provider": 8000, "vllm-a": 8000, "vllm-b": 8000, "gateway": 8080}

SAYS_PING = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=3) as link:
    link.sendall(b"PING\\r\\n")
    sys.exit(link.recv(16) != b"+PONG\\r\\n")
"""


class Outside:
    """One profile. ``port`` has a free port for each host name that the profile knows."""

    def __init__(self, processes: Processes, folder: Path, profile: str, policies: str) -> None:
        self._processes = processes
        self._folder = folder
        self._hosts = hosts(profile)
        self.port = {host: free_port() for host in PORTS}
        self.admin_port = free_port()
        self.policies = folder / "policies"
        shutil.copytree(DEPLOY / policies, self.policies)
        for path in self.policies.rglob("*.yaml"):
            path.write_text(self._here(path.read_text(), {}))

    def start(self, host: str) -> Process:
        """Start the service that answers to this name."""
        service = SERVICES[self._hosts[host]]
        paths = {"/data": self._made("data"), "/policies": self.policies, "/var/lib/failsoft": self._made("state")}
        command = [self._here(word, paths) for word in self._program(service) + words(service["command"])]
        for at, word in enumerate(command):
            if word == "--port":
                command[at + 1] = str(self.port[host])
            if word == "--admin-port":
                command[at + 1] = str(self.admin_port)
        if host == "redis":
            command += ["--port", str(self.port[host]), "--bind", "127.0.0.1"]
        env = {name: str(value) for name, value in service.get("environment", {}).items()}
        return self._processes.command(command, name=host, env=env)

    def healthy(self, host: str) -> bool:
        """Run its health check."""
        command = health_check(SERVICES[self._hosts[host]])
        if command == ["valkey-cli", "ping"]:
            found = shutil.which("valkey-cli") or shutil.which("redis-cli")
            port = str(self.port[host])
            command = [found, "-p", port, "ping"] if found else [sys.executable, "-c", SAYS_PING, port]
        else:
            assert command[0] in ("python", "python3")
            inside = f"127.0.0.1:{PORTS[host]}"
            assert inside in command[2]
            command = [sys.executable, "-c", command[2].replace(inside, f"127.0.0.1:{self.port[host]}")]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0

    def _program(self, service: Mapping[str, object]) -> list[str]:
        if service["image"] == "failsoft":
            # The Dockerfile's, where compose.yaml says none.
            entry = words(service.get("entrypoint", ["failsoft"]))  # type: ignore[arg-type]
            return [sys.executable, *(["-m", "gateway.cli"] if entry == ["failsoft"] else entry[1:])]
        return []

    def _here(self, text: str, paths: Mapping[str, Path]) -> str:
        if text == "valkey-server":
            return binary("valkey")
        for inside, path in paths.items():
            if text == inside:
                return str(path)
        if text == "0.0.0.0":
            return "127.0.0.1"
        return re.sub(
            r"(?<=//)([a-z-]+):(\d+)",
            lambda found: f"127.0.0.1:{self.port[found[1]]}" if PORTS.get(found[1]) == int(found[2]) else found[0],
            text,
        )

    def _made(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(exist_ok=True)
        return path
