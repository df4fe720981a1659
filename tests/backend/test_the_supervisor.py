"""What goes wrong beside the server does not end it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from backend import supervisor as supervising
from backend.box_process import BoxProcess
from backend.first_token import FirstToken
from backend.launch import free_port
from backend.log_file import LogFile
from backend.serve_plan import VllmCommand
from backend.supervisor import Event, LogLost, Patience, Ready, Stopped, Supervisor
from tests.support.eventually import eventually

FAKE = Path(__file__).parent / "fake_engine.py"


async def test_a_server_whose_log_is_taken_away_serves_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "TRIM_EVERY_S", 0.0)
    port, told = free_port(), list[Event]()
    log = LogFile(tmp_path / "a.log")
    process = BoxProcess("a", VllmCommand((sys.executable, str(FAKE), "--port", str(port)), {}), log=log.path)
    supervisor = Supervisor(
        process,
        log,
        FirstToken(f"http://127.0.0.1:{port}", "base", None),
        adapters=0,
        restarts=0,
        patience=Patience(start_s=20, drain_s=1),
        tell=told.append,
    )
    running = asyncio.get_running_loop().create_task(supervisor.run())
    await eventually(lambda: any(isinstance(event, Ready) for event in told), within_s=20)
    log.path.unlink()
    await eventually(lambda: any(isinstance(event, LogLost) for event in told))
    await asyncio.sleep(0.3)
    assert process.running
    supervisor.stop()
    assert await running
    assert told[-1] == Stopped(in_order=True)
    assert sum(isinstance(event, LogLost) for event in told) == 1, "once is enough"
