"""What goes wrong beside the server does not end it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from backend import supervisor as supervising
from backend.box_process import BoxProcess
from backend.first_token import FirstToken
from backend.launch import free_port
from backend.log_file import LogFile
from backend.serve_plan import VllmCommand
from backend.supervisor import Ended, Event, LogLost, Patience, Ready, Stopped, Supervisor
from tests.support.eventually import eventually

FAKE = Path(__file__).parent / "fake_engine.py"


class WatchedLog(LogFile):
    """Counts how often it was looked whether there is too much of it."""

    looks = 0

    def trim(self) -> bool:
        self.looks += 1
        return super().trim()


class Supervised:
    """A stand-in server under a supervisor in this process. ``told``: every event so far."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = VllmCommand((sys.executable, str(FAKE), "--port", str(port)), {})
        self.told: list[Event] = []
        self.log = WatchedLog(folder / "a.log")
        self.process = BoxProcess("a", command, log=self.log.path)
        self.supervisor = Supervisor(
            self.process,
            self.log,
            FirstToken(f"http://127.0.0.1:{port}", "base", None),
            adapters=0,
            restarts=0,
            patience=Patience(start_s=20, drain_s=1),
            tell=self.told.append,
        )

    async def until(self, kind: type[Event]) -> None:
        """Wait for an event of this kind."""
        await eventually(lambda: any(isinstance(event, kind) for event in self.told), within_s=20)


async def test_a_server_whose_log_is_taken_away_serves_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "TRIM_EVERY_S", 0.0)
    box = Supervised(tmp_path)
    running = asyncio.get_running_loop().create_task(box.supervisor.run())
    await box.until(Ready)
    box.log.path.unlink()
    await box.until(LogLost)
    looks = box.log.looks
    await eventually(lambda: box.log.looks > looks + 1)
    assert box.process.running
    box.supervisor.stop()
    assert await running
    assert box.told[-1] == Stopped(in_order=True)
    assert sum(isinstance(event, LogLost) for event in box.told) == 1, "once is enough"


async def test_what_failed_for_one_request_long_ago_is_not_why_the_server_ended(tmp_path: Path) -> None:
    box = Supervised(tmp_path)
    running = asyncio.get_running_loop().create_task(box.supervisor.run())
    await box.until(Ready)
    with box.log.path.open("a") as log:
        log.write("LoRA rank 32 is greater than max_lora_rank 16\n" + "INFO served\n" * 300)
    os.kill(box.process.pid, signal.SIGKILL)
    assert not await running
    (ended,) = [event for event in box.told if isinstance(event, Ended)]
    assert ended.diagnosis is not None
    assert ended.diagnosis.cause == "it was killed with SIGKILL"
