"""The worker's life, by quick stand-ins for it: started again when it dies or hangs, gone when the gateway is."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.observe.alarms import Alarms
from gateway.upstream import litellm_process
from gateway.upstream.litellm_process import ALARM, LitellmProcess
from tests.providers import policies
from tests.providers.policies import until

BEATS = "import os, time\nwhile True: os.write(1, b'.'); time.sleep(0.02)"
BEATS_ONCE = "import os, time\nos.write(1, b'.'); time.sleep(60)"
DIES = "import sys; sys.exit(3)"
SILENT = "import time; time.sleep(60)"

Start = Callable[[str], LitellmProcess]


@pytest.fixture
def alarms() -> Alarms:
    return policies.alarms()


@pytest.fixture
async def start(tmp_path: Path, alarms: Alarms) -> AsyncIterator[Start]:
    started: list[LitellmProcess] = []

    def start(code: str) -> LitellmProcess:
        worker = LitellmProcess(tmp_path, alarms, command=(sys.executable, "-c", code))
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        await worker.close()


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_worker_is_ready_with_its_first_heartbeat(start: Start, alarms: Alarms) -> None:
    worker = start(BEATS)
    await asyncio.wait_for(worker.ready(), 10)
    assert worker.alive
    assert alarms.current() == ()


async def test_a_worker_is_worth_waiting_for_from_when_it_is_told_to_start(start: Start) -> None:
    assert start(SILENT).alive


async def test_a_worker_that_dies_is_started_again(start: Start, alarms: Alarms) -> None:
    worker = start(BEATS)
    await asyncio.wait_for(worker.ready(), 10)
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: worker.pid not in (None, first))
    await asyncio.wait_for(worker.ready(), 10)
    assert not alarms.is_on(ALARM, "litellm")


async def test_a_worker_that_cannot_live_alarms_and_is_tried_again(start: Start, alarms: Alarms) -> None:
    worker = start(DIES)
    pids: set[int | None] = set()

    def tried_twice() -> bool:
        pids.add(worker.pid)
        return len(pids - {None}) >= 2

    await until(tried_twice)
    (alarm,) = alarms.current()
    assert alarm.kind == ALARM
    assert "status 3" in alarm.message
    await until(lambda: not worker.alive)


@pytest.mark.parametrize("code", [BEATS_ONCE, SILENT])
async def test_a_worker_that_hangs_is_killed_and_replaced(
    start: Start, alarms: Alarms, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(litellm_process, "SILENCE_S", 0.2)
    monkeypatch.setattr(litellm_process, "START_S", 1.0)
    worker = start(code)
    await until(lambda: worker.pid is not None)
    first = worker.pid
    assert first is not None
    await until(lambda: alarms.is_on(ALARM, "litellm"))
    assert "hung" in alarms.current()[0].message
    assert not running(first)
    await until(lambda: worker.pid not in (None, first))


async def test_who_connects_before_the_worker_is_up_waits_in_the_backlog(start: Start) -> None:
    worker = start(SILENT)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(worker.origin.uds or "")


async def test_closing_ends_the_worker_and_takes_the_socket_away(start: Start, tmp_path: Path) -> None:
    worker = start(BEATS)
    await asyncio.wait_for(worker.ready(), 10)
    pid = worker.pid
    assert pid is not None
    await worker.close()
    assert not running(pid)
    assert not worker.alive
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_the_socket_is_the_gateways_alone(tmp_path: Path, alarms: Alarms) -> None:
    with asyncio.Runner() as runner:
        worker = LitellmProcess(tmp_path, alarms)
        path = Path(worker.origin.uds or "")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        runner.run(worker.close())


def test_a_state_folder_too_deep_for_a_socket_is_no_hindrance(tmp_path: Path, alarms: Alarms) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with asyncio.Runner() as runner:
        worker = LitellmProcess(deep, alarms)
        assert Path(worker.origin.uds or "").is_socket()
        runner.run(worker.close())


def test_what_a_killed_gateway_left_behind_is_cleared_and_a_living_ones_is_not(tmp_path: Path, alarms: Alarms) -> None:
    with asyncio.Runner() as runner:
        living = LitellmProcess(tmp_path, alarms)
        dead = tmp_path / "litellm-dead"
        dead.mkdir()
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(dead / "worker.sock"))
        other = LitellmProcess(tmp_path, alarms)
        assert not dead.exists()
        assert Path(living.origin.uds or "").is_socket()
        runner.run(living.close())
        runner.run(other.close())


def test_the_real_worker_ends_when_the_gateway_does(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "worker.sock"))
        listener.listen()
        command = [sys.executable, "-m", "gateway.upstream.litellm_worker", "--fd", str(listener.fileno())]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[listener.fileno()]
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdout.read(1) == b"."
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(str(tmp_path / "worker.sock"))
                client.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            assert worker.stdin is not None
            worker.stdin.close()  # as the kernel does when the gateway is killed
            assert worker.wait(10) == -signal.SIGKILL
