"""Commands to a running demo, from another terminal."""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.demo import app
from gateway.demo.boxes import Box, Boxes
from gateway.demo.child import Child
from gateway.demo.control import ControlServer, Reply, in_use, send
from gateway.demo.guardian import Guardian
from gateway.demo.layout import Layout, default_root
from gateway.demo.narrator import Line

ROOT = Path(__file__).parent.parent.parent
SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def root() -> Iterator[Path]:
    """Short enough for a Unix socket, which pytest's own folders need not be."""
    with tempfile.TemporaryDirectory(prefix="fs-") as folder:
        yield Path(folder)


@pytest.fixture
async def boxes(root: Path) -> AsyncIterator[tuple[Boxes, list[Line]]]:
    Layout(root).make()
    lines: list[Line] = []
    child = Child("box-a", SLEEPER, log=Layout(root).log("box-a"), guardian=Guardian())
    boxes = Boxes((Box(child, "http://127.0.0.1:9"),), lines.append)
    await boxes.start()
    yield boxes, lines
    await boxes.stop()


async def test_a_killed_box_is_gone_until_it_is_revived(boxes: tuple[Boxes, list[Line]]) -> None:
    troupe, lines = boxes
    killed = await troupe.command("kill", "box-a")
    assert killed.done
    again = await troupe.command("kill", "box-a")
    assert not again.done
    assert "revive box-a" in again.message
    assert (await troupe.command("revive", "box-a")).done
    assert [line.subject for line in lines] == ["box-a", "box-a"]


async def test_a_frozen_box_thaws(boxes: tuple[Boxes, list[Line]]) -> None:
    troupe, _ = boxes
    assert (await troupe.command("freeze", "box-a")).done
    assert (await troupe.command("thaw", "box-a")).done
    assert not (await troupe.command("thaw", "box-a")).done


async def test_a_box_that_runs_is_not_revived(boxes: tuple[Boxes, list[Line]]) -> None:
    troupe, _ = boxes
    assert await troupe.command("revive", "box-a") == Reply(False, "box-a is up already")


async def test_a_frozen_box_ends_with_the_demo(root: Path) -> None:
    Layout(root).make()
    child = Child("box-a", SLEEPER, log=Layout(root).log("box-a"), guardian=Guardian())
    await child.start()
    child.freeze()
    await child.stop(grace_s=10)
    assert not child.running


async def test_grandchildren_do_not_outlive_a_demo_that_is_killed(root: Path) -> None:
    forks = "import os, time\npid = os.fork()\nif pid: print(pid, flush=True)\ntime.sleep(60)"
    script = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from gateway.demo.child import Child\nfrom gateway.demo.guardian import Guardian\n"
        "async def main():\n guardian = Guardian()\n await guardian.start()\n"
        f" child = Child('box-a', (sys.executable, '-c', {forks!r}), log=Path('log'), guardian=guardian)\n"
        " await child.start()\n while not child.log.read_text(): await asyncio.sleep(0.01)\n"
        " print(child.pid, child.log.read_text(), flush=True)\n await child.wait()\n"
        "asyncio.run(main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, cwd=root, env=environment
    )
    assert demo.stdout is not None
    pids = (await demo.stdout.readline()).split()
    assert len(pids) == 2
    processes = [os.pidfd_open(int(pid)) for pid in pids]  # readable once the process has ended
    demo.kill()
    await demo.wait()
    for process in processes:
        ended, _, _ = await asyncio.to_thread(select.select, [process], [], [], 10)
        os.close(process)
        assert ended


async def test_an_unknown_box_is_answered_with_those_there_are(boxes: tuple[Boxes, list[Line]]) -> None:
    troupe, _ = boxes
    reply = await troupe.command("kill", "box-z")
    assert not reply.done
    assert "box-a" in reply.message


async def test_a_command_and_its_reply_pass_through_the_socket(root: Path) -> None:
    async def handle(verb: str, box: str) -> Reply:
        return Reply(True, f"{verb} {box}, aye")

    server = ControlServer(root / "control", handle)
    await server.start()
    assert await asyncio.to_thread(in_use, root / "control")
    assert await asyncio.to_thread(send, root / "control", "kill", "box-b") == Reply(True, "kill box-b, aye")
    await server.close()
    assert not in_use(root / "control")


@pytest.mark.parametrize("garbage", [b"\n", b"[]\n", b"{}\n", b"kill box-a\n", b'{"verb": "kill"}\n'])
async def test_garbage_on_the_socket_is_refused_politely(root: Path, garbage: bytes) -> None:
    async def handle(verb: str, box: str) -> Reply:
        raise AssertionError("not reached")

    server = ControlServer(root / "control", handle)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(root / "control")
    writer.write(garbage)
    assert json.loads(await reader.readline())["done"] is False
    writer.close()
    await writer.wait_closed()
    await server.close()


async def test_a_second_demo_in_the_same_folder_is_refused(root: Path) -> None:
    async def handle(verb: str, box: str) -> Reply:
        raise AssertionError("not reached")

    server = ControlServer(root / "control", handle)
    await server.start()
    result = await asyncio.to_thread(CliRunner().invoke, app, ["--state", str(root)])
    await server.close()
    assert result.exit_code == 3
    assert "already running" in result.stdout


def test_a_command_without_a_demo_says_how_to_start_one(root: Path) -> None:
    result = CliRunner().invoke(app, ["kill", "box-a", "--state", str(root)])
    assert result.exit_code == 3
    assert "failsoft demo" in result.stderr


def test_the_folder_is_closed_to_others(root: Path) -> None:
    layout = Layout(root / "demo")
    layout.make()
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in (layout.root, layout.policies, layout.gateway))


def test_the_folder_follows_the_base_directory_specification() -> None:
    assert default_root({"XDG_STATE_HOME": "/var/state"}) == Path("/var/state/failsoft/demo")
    assert default_root({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/failsoft/demo"
