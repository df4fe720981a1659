"""A Redis that is slow, that comes back with less than it had, and that another one takes the place of."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from gateway.errors import StoreReadOnly
from gateway.policy.follow import PolicyFollower
from gateway.policy.replicas import Heartbeat
from gateway.policy.standing import Standing
from gateway.policy.store import PolicyStore
from gateway.policy.validate import read_folder
from tests.policy.scenery import Folder, RecordedAlarms, eventually
from tests.support.fault_proxy import FaultProxy, Latency, Timeout
from tests.support.processes import Processes
from tests.support.redis_server import KINDS, RedisServer
from tests.support.tls_front import TLSFront

Follow = Callable[..., Awaitable[PolicyFollower]]


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest, processes: Processes, tmp_path: Path) -> RedisServer:
    started = RedisServer(processes, tmp_path, kind=str(request.param))
    await started.ready()
    return started


def version(follower: PolicyFollower) -> int:
    return follower.current.version if follower.current is not None else 0


async def apply(server: RedisServer, folder: Folder) -> None:
    store = PolicyStore(server.url)
    try:
        await store.apply(read_folder(folder.path))
    finally:
        await store.close()


async def test_a_slow_store_is_followed_slowly_and_one_that_says_nothing_is_away(
    server: RedisServer, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    await apply(server, folder)
    async with FaultProxy(server.host) as proxy:
        proxy.poison(Latency(0.1, jitter_s=0.05))
        follower = await follow(redis_url=f"redis://127.0.0.1:{proxy.port}")
        assert (version(follower), follower.source) == (1, "store")
        await apply(server, folder)
        await eventually(lambda: version(follower) == 2)
        assert "policy_store_away" not in {kind for kind, _ in alarms.ever}
        proxy.poison(Timeout())
        await eventually(lambda: "policy_store_away" in alarms.kinds())
        assert version(follower) == 2
        await apply(server, folder)
        proxy.heal()
        await eventually(lambda: "policy_store_away" not in alarms.kinds())
        await eventually(lambda: version(follower) == 3)
        await follower.close()


async def test_a_store_that_says_nothing_over_tls_is_followed_again(
    processes: Processes, tmp_path: Path, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    server = RedisServer(processes, tmp_path)
    authority, trusted = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    await server.ready()
    await apply(server, folder)
    async with TLSFront(context, server.port) as front, FaultProxy(f"127.0.0.1:{front.port}") as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={trusted}"
        follower, store = await follow(redis_url=url), PolicyStore(url)
        assert version(follower) == 1
        assert await store.head() is not None
        # Not even that a connection is closed is heard at the other side, nor answered.
        proxy.poison(Timeout(), direction="upstream")
        proxy.poison(Timeout())
        await eventually(lambda: "policy_store_away" in alarms.kinds())
        await store.close()
        await apply(server, folder)
        proxy.heal()
        await eventually(lambda: version(follower) == 2)
        await follower.close()


async def test_a_store_restored_from_a_backup_and_then_replaced(
    server: RedisServer, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    await apply(server, folder)
    await server.ask("SAVE")
    folder.customer("globex")
    await apply(server, folder)
    follower = await follow(redis_url=server.url)
    before = follower.current
    assert before is not None
    assert before.version == 2
    server.process.kill()
    server.process.start()  # with what had been saved
    await eventually(lambda: "policy_store_behind" in alarms.kinds())
    assert follower.current is before
    server.process.kill()
    (server.home / "dump.rdb").unlink()
    server.process.start()
    await eventually(lambda: "policy_store_empty" in alarms.kinds())
    assert follower.current is before
    folder.customer("initech")
    await apply(server, folder)
    await eventually(lambda: follower.current is not before)
    after = follower.current
    assert after is not None
    assert (after.version, "initech" in after.customers) == (1, True)
    assert after.store_id != before.store_id
    await eventually(lambda: alarms.kinds() == set())


async def test_a_store_that_cannot_save_is_read_and_says_that_it_takes_no_writes(
    server: RedisServer, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    await apply(server, folder)
    follower = await follow(redis_url=server.url)
    await server.ask("CONFIG", "SET", "save", "3600 1")
    shutil.rmtree(server.home)  # as a disk that is full: nothing can be written there
    await server.ask("BGSAVE")
    async with asyncio.timeout(10):
        while (await server.ask("INFO", "persistence"))["rdb_last_bgsave_status"] != "err":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    store = PolicyStore(server.url)
    heartbeat = Heartbeat(
        store,
        on_change=lambda alive, rank: None,
        uniform=lambda: 0.5,
        alarms=alarms,
        standing=lambda: Standing(name="host:1", pid=1),
    )
    heartbeat.start()
    await eventually(lambda: "policy_store_read_only" in alarms.kinds())
    assert "MISCONF" in alarms.now["policy_store_read_only", "policies"]
    with pytest.raises(StoreReadOnly, match="takes no writes: MISCONF"):
        await store.apply(read_folder(folder.path))
    assert version(follower) == 1
    assert "policy_store_away" not in alarms.kinds()
    await server.ask("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
    await eventually(lambda: "policy_store_read_only" not in alarms.kinds())
    await store.apply(read_folder(folder.path))
    await eventually(lambda: version(follower) == 2)
    await heartbeat.close()
