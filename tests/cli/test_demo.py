"""The demo from outside, as the README has it: started, boxes killed and revived, ended."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.demo.ports import free_port

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "gateway.cli", "demo")


@pytest.fixture
def state() -> Iterator[Path]:
    """Short enough for a Unix socket, which pytest's own folders need not be."""
    with tempfile.TemporaryDirectory(prefix="fs-") as folder:
        yield Path(folder)


class RunningDemo:
    """A demo in a process of its own, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process, state: Path) -> None:
        self.process = process
        self.state = state
        self.lines: list[str] = []

    async def until(self, pattern: str) -> str:
        """The next line in which the pattern occurs."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            self.lines.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"never printed: {pattern}\n{''.join(self.lines)}")

    async def command(self, verb: str, box: str) -> str:
        """Give it a command from outside, and return what that printed."""
        arguments = (*COMMAND, verb, box, "--state", str(self.state))
        process = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode()

    def descendants(self) -> list[int]:
        """A file descriptor for each process that it has started, and those have."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (FileNotFoundError, ProcessLookupError):
                    continue
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return [os.pidfd_open(pid) for pid in found - {self.process.pid}]


async def usage(url: str, token: str) -> list[dict[str, Any]]:
    """What `failsoft usage` says of this gateway."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND[:-1], "usage", "--json", "--url", url,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, env={**os.environ, "FAILSOFT_ADMIN_TOKEN": token},
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0
    found: list[dict[str, Any]] = json.loads(output)["usage"]
    return found


@pytest.fixture
async def demo(state: Path) -> AsyncIterator[RunningDemo]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--port", str(free_port()), "--state", str(state), "--rate", "8",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    yield RunningDemo(process, state)
    if process.returncode is None:
        process.terminate()
    await process.communicate()


async def gone(processes: list[int]) -> bool:
    """Whether all those processes have ended, or do so within a few seconds."""
    poll = await asyncio.to_thread(_await_ends, processes)
    for process in processes:
        os.close(process)
    return poll


def _await_ends(processes: list[int]) -> bool:

    return all(select.select([process], [], [], 5)[0] for process in processes)


async def test_it_shows_the_death_of_both_boxes_and_their_return(demo: RunningDemo) -> None:
    await demo.until(r"curl -i http://127\.0\.0\.1:\d+/v1/chat/completions")
    await demo.until(r"client = OpenAI\(")
    ops = re.search(r"(http://\S+)/ops#token=(\S+)", await demo.until(r"/ops#token="))
    assert ops is not None
    await demo.until(
        r'acme +own adapter customer_acme_v3 from box:box-[ab] calls acme_credit\(\{"ref": "ORD-\d+", "cents":'
    )
    assert "box-a killed" in await demo.command("kill", "box-a")
    await demo.command("kill", "box-b")
    degraded = r"(backend_down|circuit_open): \S+ from provider:hosted calls refund_order\("
    assert re.search(degraded, await demo.until(r"acme +degraded"))
    async with asyncio.timeout(20):
        while not [row for row in await usage(ops[1], ops[2]) if row["usd"] > 0 and not row["unpriced"]]:
            await demo.until(r"acme")  # a batch of usage is counted now and then
    await demo.command("revive", "box-b")
    await demo.until(r"acme +back: own adapter customer_acme_v3 from box:box-b")
    assert not any(" failed" in line and " 0 failed" not in line for line in demo.lines)
    children = demo.descendants()
    assert len(children) >= 4, "a provider, a box, the gateway and its store"
    demo.process.send_signal(signal.SIGINT)
    assert await demo.process.wait() == 0
    assert await gone(children)
    assert not (demo.state / "control").exists()


async def test_nothing_outlives_a_demo_that_is_killed(demo: RunningDemo) -> None:
    await demo.until(r"acme +own adapter")
    children = demo.descendants()
    demo.process.kill()
    assert await gone(children)


async def test_a_demo_of_so_many_answers_ends_by_itself(state: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--port", str(free_port()), "--state", str(state), "--rate", "20", "--once", "12",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"0 failed" in output


async def test_a_taken_port_is_named_with_the_way_out(state: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--port", port, "--state", str(state), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert process.returncode == 3
    assert f"Port {port} is taken" in output.decode()
