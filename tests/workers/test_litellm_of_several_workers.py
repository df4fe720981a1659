"""Providers that need translation, of a gateway of several workers: one LiteLLM process for all."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.cli.served import ADAPTER, LATER, Served, digest
from tests.providers.anthropic_api import AnthropicApi, plain
from tests.support.processes import Processes
from tests.workers.conftest import ENV, Several

CROWD = 12


def litellm_processes(parents: list[int]) -> list[int]:
    """The LiteLLM workers that these processes have started, from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent in parents and "litellm_worker" in command:
                found.append(int(entry.name))
    return found


async def test_all_workers_ask_through_one_litellm_process_that_is_started_again(
    processes: Processes, tmp_path: Path
) -> None:
    async with AnthropicApi() as api:
        api.script = plain("Hello from Claude.")
        served = Served(processes, tmp_path, "http://127.0.0.1:9")
        served.write(
            "fleet.yaml",
            {
                "fleets": {"main": {"base_model": "base", "boxes": {"a": {"url": "http://127.0.0.1:9"}}}},
                "providers": {
                    "claude": {
                        "model": "anthropic/claude-test-1",
                        "api_base": api.url,
                        "api_key": "${PROVIDER_KEY}",
                    }
                },
            },
        )
        served.write(
            "customers/acme.yaml",
            {
                "customer": "acme",
                "api_keys": [digest("fs-acme-key")],
                "adapters": [ADAPTER],
                "fallback": [{"provider": "claude"}, {"static": LATER}],
            },
        )
        process, url = await served.up("--workers", "2", env={**ENV, "PROVIDER_KEY": "sk-provider"})
        gateway = Several(processes, process, url)
        workers = [worker["pid"] for worker in (await gateway.status())["workers"]]

        async def all_by_claude() -> bool:
            answers = await gateway.crowd(CROWD, stream=False)
            return {answer.headers["x-failsoft-served-by"] for answer in answers} == {"provider:claude"}

        await gateway.until(all_by_claude, within_s=60)
        (first,) = litellm_processes([process.pid, *workers])
        os.kill(first, signal.SIGKILL)

        async def another() -> bool:
            return bool(set(litellm_processes([process.pid, *workers])) - {first})

        await gateway.until(another, within_s=30)
        await gateway.until(all_by_claude, within_s=60)
        process.terminate()
        assert await process.ended(within_s=20) == 0
        assert litellm_processes([process.pid, *workers]) == []
