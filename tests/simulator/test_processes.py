"""Subprocesses of tests can be waited for, frozen and killed, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.processes import NotReady, Processes, flags
from tests.support.raw_client import RawClient


def gone(pid: int) -> bool:
    """Whether no such process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


async def test_nothing_is_left_even_of_what_is_frozen_or_has_children(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']); "
        "print(child.pid, flush=True); child.wait()"
    )
    with Processes(tmp_path) as processes:
        parent = processes.command([sys.executable, "-c", script], name="parent")
        await parent.ready(lambda: parent.output.endswith("\n"))
        child = int(parent.output)
        parent.freeze()
    await eventually(lambda: gone(parent.pid) and gone(child))


async def test_a_frozen_box_answers_again_when_it_thaws(processes: Processes) -> None:
    box = processes.box()
    await box.ready()
    client = RawClient(box.url)
    box.freeze()
    assert (await client.ask("/health", timeout_s=0.2)).end == "timeout"
    box.thaw()
    assert (await client.ask("/health")).status == 200


async def test_a_process_that_ends_early_is_not_ready_and_says_why(processes: Processes) -> None:
    process = processes.command([sys.executable, "-c", "raise SystemExit('out of cheese')"], name="failing")
    with pytest.raises(NotReady, match="out of cheese"):
        await process.ready(lambda: False)


async def test_one_that_takes_too_long_is_not_ready(processes: Processes) -> None:
    process = processes.command([sys.executable, "-c", "import time; time.sleep(100)"], name="slow")
    with pytest.raises(NotReady, match="not ready in time"):
        await process.ready(lambda: False, within_s=0.05)


async def test_a_simulator_may_end_with_the_process_that_started_it(processes: Processes) -> None:
    script = (
        "import subprocess, sys; "
        "subprocess.Popen([sys.executable, '-m', 'backend.simulator', '--port', '0', '--exit-with-stdin'],"
        " stdin=subprocess.PIPE).wait()"
    )
    parent = processes.command([sys.executable, "-c", script], name="parent")
    await parent.ready(lambda: '"pid"' in parent.output)
    child = int(parent.output.rpartition('"pid":')[2].rstrip("}\n"))
    os.kill(parent.pid, signal.SIGKILL)
    await eventually(lambda: gone(child))


def test_knobs_become_options() -> None:
    knobs = {"ttft_ms": 5, "adapter": ["a", "b"], "any_adapter": True, "api_key": None, "fault": {"fault": "abort"}}
    assert flags(knobs) == [
        "--ttft-ms", "5", "--adapter", "a", "--adapter", "b", "--any-adapter", "--fault", '{"fault": "abort"}',
    ]  # fmt: skip
