"""The gateway as a process, and what its admin API says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.faults.cast import ADMIN_TOKEN, ENVIRONMENT
from tests.support.processes import Process, Processes

SAYS: Final = "failsoft listens on "


class GatewayProcess:
    """One gateway. It may be killed and started again; its address is then another."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._url = ""
        self._admin: httpx2.Client | None = None

    @classmethod
    def start(cls, processes: Processes, *options: str | Path, env: Mapping[str, str] | None = None) -> GatewayProcess:
        """Start one with these options of ``failsoft serve``; wait for it with ``ready`` or ``wait_ready``."""
        command = [sys.executable, "-m", "tests.faults.steady_homes", "serve", "--port", "0", *options]
        return cls(processes.command(command, name="gateway", env={**ENVIRONMENT, **(env or {})}))

    @property
    def listening(self) -> bool:
        """Whether it has said where it listens, in a whole line."""
        return SAYS in self.process.output and "\n" in self.process.output.partition(SAYS)[2]

    @property
    def url(self) -> str:
        """Without /v1."""
        if not self._url:
            self._url = self.process.output.partition(SAYS)[2].split()[0]
        return self._url

    async def ready(self) -> None:
        """Wait until it takes connections and has probed its boxes, or has waited for them long enough."""
        await self.process.ready(lambda: self.listening)
        await self.process.ready(self._says_ready)

    def wait_ready(self) -> None:
        """The same for code that is not async."""
        self.process.wait_ready(lambda: self.listening)
        self.process.wait_ready(self._says_ready)

    def status(self) -> dict[str, Any]:
        """``/admin/status``."""
        return dict(self._client().get("/admin/status").raise_for_status().json())

    def readiness(self) -> dict[str, Any]:
        """``/readyz``, whatever its status."""
        return dict(self._client().get("/readyz").json())

    def box(self, name: str) -> dict[str, Any]:
        """One box of ``/admin/status``."""
        return next(box for box in self.status()["boxes"] if box["name"] == name)

    def provider(self, name: str) -> dict[str, Any]:
        """One provider of ``/admin/status``."""
        return next(provider for provider in self.status()["providers"] if provider["name"] == name)

    def drill(self, customer: str) -> bool:
        """Whether all that a customer's fallback asks answers."""
        return bool(self._client().post("/admin/drills", json={"customer": customer}).json()["ok"])

    def metrics(self) -> str:
        """``/metrics``."""
        return self._client().get("/metrics").raise_for_status().text

    def alarms(self) -> set[str]:
        """The kinds of the alarms that are on."""
        return {alarm["kind"] for alarm in self.status()["alarms"]}

    def memory_bytes(self) -> int:
        """The most memory that was ever resident (VmHWM of proc_pid_status(5))."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))

    def start_again(self) -> None:
        """After it has ended."""
        self.expect_no_defect()
        self.close()
        self._url = ""
        self.process.start()

    def expect_no_defect(self) -> None:
        """Raises AssertionError where its log holds a traceback: whatever breaks around it, it has an error for."""
        said, traceback, more = self.process.output.partition("Traceback (most recent call last)")
        assert not traceback, said[-500:] + traceback + more[:5000]

    def close(self) -> None:
        """Close the connection to it."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _says_ready(self) -> bool:
        return self._client().get("/readyz").status_code == 200

    def _client(self) -> httpx2.Client:
        if self._admin is None:
            headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
            # Over plain HTTP there is nothing to verify, and loading the authorities takes a tenth of a second.
            self._admin = httpx2.Client(base_url=self.url, headers=headers, timeout=10, trust_env=False, verify=False)
        return self._admin
