"""A gateway as `failsoft serve` starts it, and its folder of policies."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from tests.support.processes import Process, Processes

KEY = "fs-acme-key"
ADAPTER = "acme_v3"
LATER = "We are in reduced mode."


def digest(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


class Served:
    """A gateway of its own, its folder of policies, and how to edit them. JSON is YAML too."""

    def __init__(self, processes: Processes, folder: Path, *boxes: str) -> None:
        self._processes = processes
        self.state = folder / "state"
        self.policies = folder / "policies"
        (self.policies / "customers").mkdir(parents=True)
        fleet = {"base_model": "base", "boxes": {name: {"url": url} for name, url in zip("ab", boxes, strict=False)}}
        self.write("fleet.yaml", {"fleets": {"main": fleet}})
        self.write("defaults.yaml", {"defaults": {"on_broken_stream": "error", "fallback": [{"static": LATER}]}})
        self.customer()

    def write(self, name: str, content: Any) -> None:
        (self.policies / name).write_text(json.dumps(content))

    def customer(self, name: str = "acme", *keys: str, **more: Any) -> None:
        api_keys = [digest(key) for key in keys or (KEY,)]
        policy = {"customer": name, "api_keys": api_keys, "adapters": [f"{name}_v3"], **more}
        self.write(f"customers/{name}.yaml", policy)

    def start(self, *options: str, env: dict[str, str] | None = None) -> Process:
        command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", *options]
        command += ["--policies", str(self.policies), "--state", str(self.state)]
        return self._processes.command(command, name="gateway", env=env)

    async def up(self, *options: str, env: dict[str, str] | None = None) -> tuple[Process, str]:
        """The process, and the URL that it says it listens on."""
        process = self.start(*options, env=env)
        await process.ready(lambda: "failsoft listens on " in process.output)
        return process, process.output.partition("failsoft listens on ")[2].split()[0]
