"""Bounds on time in tests allow for what the machine took, and for nothing else."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.lag import Lag
from tests.support.processes import Processes

SPIN = "while True: pass"


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count it")
async def test_processes_that_want_one_cpu_wait_for_it_and_that_is_counted(processes: Processes) -> None:
    # Three that never sleep, of which one at a time can run: of each second, two are waited.
    cpu = min(os.sched_getaffinity(0))
    spinning = [processes.command([sys.executable, "-c", SPIN], name="spin") for _ in range(3)]
    for process in spinning:
        os.sched_setaffinity(process.pid, {cpu})
    lag = Lag()
    await eventually(lambda: lag.s > 0.5)
    for process in spinning:
        process.freeze()
    frozen = Lag()
    await asyncio.sleep(0.3)
    assert frozen.s < 0.2, "who is frozen waits for no CPU"


async def test_what_does_not_come_fails_in_its_time() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.1 s"):
        await eventually(lambda: False, within_s=0.1)
