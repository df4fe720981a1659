"""One store, many kinds: Valkey and Redis, with users and with TLS, behind Sentinel and in a cluster."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trustme
from redis.crc import key_slot

from gateway.errors import StoreReadOnly, StoreUnreachable
from gateway.policy.follow import PolicyFollower
from gateway.policy.redis_link import ACL_RULES, CLUSTER_ACL_RULES
from gateway.policy.standing import Standing
from gateway.policy.store import PolicyStore
from gateway.policy.validate import read_folder
from tests.policy.scenery import Folder, RecordedAlarms, eventually
from tests.support.processes import Processes
from tests.support.redis_server import KINDS, RedisServer, Sentinel, free_port
from tests.support.tls_front import TLSFront

Follow = Callable[..., Awaitable[PolicyFollower]]
PASSWORD = "p:ss/w#rd"
QUOTED = "p%3Ass%2Fw%23rd"
KEYS = ["{failsoft}:head", "{failsoft}:version:1", "{failsoft}:version:2"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PolicyStore]:
    store = PolicyStore(url)
    try:
        yield store
    finally:
        await store.close()


def version(follower: PolicyFollower) -> int:
    return follower.current.version if follower.current is not None else 0


async def use_all_of_it(store: PolicyStore, folder: Folder) -> None:
    """Everything that gateways and commands ask of a store."""
    head = await store.apply(read_folder(folder.path), note="first")
    assert await store.head() == head
    assert (await store.load(head.version)).head == head
    assert "fleet.yaml" in await store.sources(head.version)
    async with aclosing(store.watch(poll_s=60)) as heads:
        assert await anext(heads) == head
        after = await store.apply(read_folder(folder.path))
        async with asyncio.timeout(30):  # by its announcement, long before it would look by itself
            while await anext(heads) != after:
                pass
    assert [one.id for one in await store.beat("one", Standing(name="host:1", pid=1))] == ["one"]
    await store.forget("one")


async def test_a_user_with_no_more_than_the_documented_permissions_can_do_it_all(
    kind: str, processes: Processes, tmp_path: Path, folder: Folder
) -> None:
    server = RedisServer(processes, tmp_path, kind=kind)
    await server.ready()
    await server.ask("ACL", "SETUSER", "failsoft", "reset", "on", f">{PASSWORD}", *ACL_RULES.split())
    async with opened(f"redis://failsoft:{QUOTED}@{server.host}") as store:
        await use_all_of_it(store, folder)
    assert await server.ask("ACL", "LOG") == []
    rules = ACL_RULES.replace("{failsoft}:*", "{another}:*")
    await server.ask("ACL", "SETUSER", "stranger", "reset", "on", ">x", *rules.split())
    async with opened(f"redis://stranger:x@{server.host}") as store:
        with pytest.raises(StoreUnreachable, match="lacks a permission for us"):
            await store.head()
    async with opened(f"redis://failsoft:wr{QUOTED}@{server.host}") as store:
        with pytest.raises(StoreUnreachable, match="refuses our credentials") as refused:
            await store.head()
    assert PASSWORD not in str(refused.value)


async def test_tls_is_verified_against_the_authority_that_the_url_names(
    kind: str, processes: Processes, tmp_path: Path, folder: Folder
) -> None:
    server = RedisServer(processes, tmp_path, kind=kind)
    authority, stranger = trustme.CA(), trustme.CA()
    trusted, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(str(trusted))
    stranger.cert_pem.write_to_path(str(other))
    good, misnamed = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(good)
    authority.issue_cert("elsewhere.example").configure_cert(misnamed)
    await server.ready()
    async with TLSFront(good, server.port) as front, TLSFront(misnamed, server.port) as elsewhere:
        async with opened(f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={trusted}") as store:
            await use_all_of_it(store, folder)
        for url in (
            f"rediss://127.0.0.1:{front.port}",
            f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={other}",
            f"rediss://127.0.0.1:{elsewhere.port}?ssl_ca_certs={trusted}",
        ):
            async with opened(url) as store:
                with pytest.raises(StoreUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
                    await store.head()
        async with opened(f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={tmp_path}/nothing.pem") as store:
            with pytest.raises(StoreUnreachable, match="No such file"):
                await store.head()
        # A server without TLS gets no plain text either.
        async with opened(f"rediss://{server.host}") as store:
            with pytest.raises(StoreUnreachable):
                await store.head()


async def test_a_cluster_over_tls_that_asks_who_we_are(
    kind: str, processes: Processes, tmp_path: Path, folder: Folder
) -> None:
    server = RedisServer(processes, tmp_path, kind=kind, cluster_enabled="yes")
    authority = trustme.CA()
    trusted, ours = tmp_path / "ca.pem", tmp_path / "ours.pem"
    authority.cert_pem.write_to_path(str(trusted))
    authority.issue_cert("gateway.example").private_key_and_cert_chain_pem.write_to_path(str(ours))
    asking = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(asking)
    authority.configure_trust(asking)
    asking.verify_mode = ssl.CERT_REQUIRED
    await server.ready()
    await server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    async with TLSFront(asking, server.port) as front:
        await server.ask("CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")
        await server.ask("CONFIG", "SET", "cluster-announce-port", front.port)
        url = f"rediss+cluster://127.0.0.1:{front.port}?ssl_ca_certs={trusted}"
        async with opened(f"{url}&ssl_certfile={ours}&ssl_keyfile={ours}") as store:
            await until(lambda: applies(store, folder))
            await use_all_of_it(store, folder)
        async with opened(url) as store:
            with pytest.raises(StoreUnreachable):
                await store.head()


async def test_a_primary_that_dies_is_replaced_by_the_one_that_sentinel_names(
    kind: str, processes: Processes, tmp_path: Path, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    primary = RedisServer(processes, tmp_path, kind=kind)
    await primary.ready()
    replica = RedisServer(processes, tmp_path, kind=kind, replicaof=f"127.0.0.1 {primary.port}")
    await replica.ready()
    await until(lambda: in_step(replica))
    # It asks what replicas there are at once, and then each ten seconds.
    sentinel = Sentinel(processes, tmp_path, primary, kind=kind)
    await sentinel.ready()
    nobody = f"127.0.0.1:{free_port()}"
    url = f"redis+sentinel://{nobody},{sentinel.host}/failsoft?sentinel_password={sentinel.password}"
    async with opened(url) as store:
        await use_all_of_it(store, folder)
        follower = await follow(redis_url=url)
        assert (version(follower), follower.source) == (2, "store")
        await until(lambda: knows_replica(sentinel, replica))
        primary.process.kill()
        await eventually(lambda: "policy_store_away" in alarms.kinds())
        assert version(follower) == 2
        await eventually(lambda: "policy_store_away" not in alarms.kinds(), within_s=20)
        folder.customer("globex")
        await store.apply(read_folder(folder.path))
        await eventually(lambda: version(follower) == 3)
    unknown = f"redis+sentinel://{sentinel.host}/unheard-of?sentinel_password={sentinel.password}"
    for url, why in (
        (unknown, "knows none"),
        (f"redis+sentinel://{sentinel.host}/unheard-of", "refuses our credentials"),
    ):
        async with opened(url) as store:
            with pytest.raises(StoreUnreachable, match=f"nobody names the primary of unheard-of: .* {why}"):
                await store.head()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await condition():  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.02)


async def in_step(replica: RedisServer) -> bool:
    return bool((await replica.ask("INFO", "replication"))["master_link_status"] == "up")


async def knows_replica(sentinel: Sentinel, replica: RedisServer) -> bool:
    """Whether it could promote it: it has seen it in step with the primary."""
    found = await sentinel.ask("SENTINEL", "REPLICAS", "failsoft")
    return str(replica.port) in str(found) and "master-link-status': 'ok'" in str(found).replace("b'", "'")


async def test_a_replica_that_is_promoted_by_hand_is_followed_behind_the_same_name(
    kind: str, processes: Processes, tmp_path: Path, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    primary = RedisServer(processes, tmp_path, kind=kind)
    await primary.ready()
    async with opened(primary.url) as store:
        await store.apply(read_folder(folder.path))
    replica = RedisServer(processes, tmp_path, kind=kind, replicaof=f"127.0.0.1 {primary.port}")
    await replica.ready()
    await until(lambda: holds(replica, "{failsoft}:version:1"))
    follower = await follow(redis_url=replica.url)
    async with opened(replica.url) as store:
        # As a replica it can be followed, and not written.
        assert (version(follower), follower.source) == (1, "store")
        with pytest.raises(StoreReadOnly, match="takes no writes"):
            await store.apply(read_folder(folder.path))
        primary.process.kill()
        await replica.ask("REPLICAOF", "NO", "ONE")
        await store.apply(read_folder(folder.path))
        await eventually(lambda: version(follower) == 2)
    assert "policy_store_behind" not in alarms.kinds()


async def holds(server: RedisServer, key: str) -> bool:
    return bool(await server.ask("EXISTS", key))


class Cluster:
    """Two nodes; all slots are the first one's."""

    def __init__(self, processes: Processes, folder: Path, kind: str) -> None:
        self.first, self.second = (self._node(processes, folder, kind) for _ in range(2))

    @staticmethod
    def _node(processes: Processes, folder: Path, kind: str) -> RedisServer:
        return RedisServer(processes, folder, kind=kind, cluster_enabled="yes", cluster_node_timeout=1000)

    async def up(self) -> None:
        for node in (self.first, self.second):
            await node.ready()
        await self.first.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await self.second.ask("CLUSTER", "MEET", "127.0.0.1", self.first.port, self.first.bus_port)
        await until(self.knows_slots)

    async def knows_slots(self) -> bool:
        states = [str(await node.ask("CLUSTER", "INFO")) for node in (self.first, self.second)]
        return all("cluster_state:ok" in state and "cluster_slots_ok:16384" in state for state in states)

    async def id(self, node: RedisServer) -> str:
        return str((await node.ask("CLUSTER", "MYID")).decode())

    async def move(self, key: str) -> None:
        """The slot of ``key``, with all that is in it, to the second node."""
        slot = key_slot(key.encode())
        first, second = await self.id(self.first), await self.id(self.second)
        await self.second.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", first)
        await self.first.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", second)
        keys = [name.decode() for name in await self.first.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)]
        await self.first.ask("MIGRATE", "127.0.0.1", self.second.port, "", 0, 5000, "KEYS", *keys)
        for node in (self.second, self.first):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", second)


async def test_in_a_cluster_our_slot_is_found_and_followed_when_it_moves(
    kind: str, processes: Processes, tmp_path: Path, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    cluster = Cluster(processes, tmp_path, kind)
    await cluster.up()
    for node in (cluster.first, cluster.second):
        rules = f"{ACL_RULES} {CLUSTER_ACL_RULES}"
        await node.ask("ACL", "SETUSER", "failsoft", "reset", "on", ">x", *rules.split())
    # The one that we name does not have our slot.
    url = f"redis+cluster://failsoft:x@{cluster.second.host}"
    async with opened(url) as store:
        await use_all_of_it(store, folder)
        follower = await follow(redis_url=url)
        assert (version(follower), follower.source) == (2, "store")
        await cluster.move("{failsoft}:head")
        await until(lambda: applies(store, folder))
        await eventually(lambda: version(follower) == 3)
        assert "policy_store_away" not in alarms.kinds()
        assert await holds(cluster.second, "{failsoft}:version:3")
    assert [await node.ask("ACL", "LOG") for node in (cluster.second,)] == [[]]


async def answers(store: PolicyStore) -> bool:
    try:
        await store.head()
    except StoreUnreachable:
        return False
    return True


async def applies(store: PolicyStore, folder: Folder) -> bool:
    """A command that meets the move is refused, as one that meets a fail-over is; the next one is not."""
    try:
        await store.apply(read_folder(folder.path))
    except StoreUnreachable:
        return False
    return True


@pytest.mark.parametrize("how", ["by command", "its master is killed"])
async def test_in_a_cluster_a_replica_that_is_promoted_is_followed(
    how: str, kind: str, processes: Processes, tmp_path: Path, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    cluster = Cluster(processes, tmp_path, kind)
    # Two more masters, whose votes promote it.
    voters = [Cluster._node(processes, tmp_path, kind) for _ in range(2)]
    master, replica = cluster.first, cluster.second
    nodes = [master, replica, *voters]
    for node in nodes:
        await node.ready()
    for node, slots in zip((master, *voters), ((0, 16381), (16382, 16382), (16383, 16383)), strict=True):
        await node.ask("CLUSTER", "ADDSLOTSRANGE", *slots)
    assert key_slot(KEYS[0].encode()) < 16382
    for epoch, node in enumerate(nodes, start=1):
        await node.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
    for node in nodes[1:]:
        await node.ask("CLUSTER", "MEET", "127.0.0.1", master.port, master.bus_port)

    async def all_met() -> bool:
        states = [str(await node.ask("CLUSTER", "INFO")) for node in nodes]
        return all("cluster_state:ok" in state and "cluster_known_nodes:4" in state for state in states)

    await until(all_met)
    await replica.ask("CLUSTER", "REPLICATE", await cluster.id(master))
    await until(lambda: in_step(replica))

    async def is_master() -> bool:
        return bool((await replica.ask("INFO", "replication"))["role"] == "master")

    async def masters_know_it() -> bool:
        mine = await cluster.id(master)
        found = [str(await node.ask("CLUSTER", "NODES")) for node in voters]
        # As the client reads it, or as it is.
        return all(f"'master_id': '{mine}'" in nodes or f"slave {mine}" in nodes for nodes in found)

    await until(masters_know_it)

    async def has_all() -> bool:
        there = (await master.ask("INFO", "replication"))["master_repl_offset"]
        return bool((await replica.ask("INFO", "replication"))["slave_repl_offset"] >= there)

    # None that we name is the one with our slot.
    url = f"redis+cluster://{voters[0].host},{voters[1].host}"
    async with opened(url) as store:
        await use_all_of_it(store, folder)
        follower = await follow(redis_url=url)
        assert (version(follower), follower.source) == (2, "store")
        await until(has_all)
        if how == "by command":
            await replica.ask("CLUSTER", "FAILOVER")
        else:
            master.process.kill()
        await until(is_master)
        await until(lambda: applies(store, folder))
        await eventually(lambda: version(follower) >= 3, within_s=20)
        await eventually(lambda: "policy_store_away" not in alarms.kinds(), within_s=20)
        assert await holds(replica, "{failsoft}:version:3")
        if how == "by command":
            # Who was the master is a replica now, and nobody writes there.
            await until(lambda: in_step(master))
    assert "policy_store_behind" not in alarms.kinds()


async def test_a_sentinel_over_tls_names_primaries_over_tls(
    processes: Processes, tmp_path: Path, folder: Folder, follow: Follow, alarms: RecordedAlarms
) -> None:
    kind = "redis"  # The embedded Valkey was built without TLS, which replication and Sentinel have to speak here.
    authority = trustme.CA()
    trusted, cert = tmp_path / "ca.pem", tmp_path / "server.pem"
    authority.cert_pem.write_to_path(str(trusted))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(cert))
    files = {"tls_cert_file": cert, "tls_key_file": cert, "tls_ca_cert_file": trusted, "tls_auth_clients": "no"}
    tls: dict[str, object] = {**files, "tls_replication": "yes"}
    ports = free_port(), free_port(), free_port()
    primary = RedisServer(processes, tmp_path, kind=kind, tls_port=ports[0], **tls)
    await primary.ready()
    replica = RedisServer(processes, tmp_path, kind=kind, tls_port=ports[1], replicaof=f"127.0.0.1 {ports[0]}", **tls)
    await replica.ready()
    await until(lambda: in_step(replica))
    more = "".join(f"{name.replace('_', '-')} {value}\n" for name, value in {**tls, "tls_port": ports[2]}.items())
    sentinel = Sentinel(processes, tmp_path, primary, kind=kind, primary_port=ports[0], more=more)
    await sentinel.ready()
    url = f"rediss+sentinel://127.0.0.1:{ports[2]}/failsoft?sentinel_password={sentinel.password}"

    async def knows() -> bool:
        found = str(await sentinel.ask("SENTINEL", "REPLICAS", "failsoft")).replace("b'", "'")
        return str(ports[1]) in found and "master-link-status': 'ok'" in found

    async with opened(f"{url}&ssl_ca_certs={trusted}") as store:
        # A sentinel is given half a second to answer, which its first handshake on a loaded machine may take.
        await until(lambda: answers(store))
        await use_all_of_it(store, folder)
        follower = await follow(redis_url=f"{url}&ssl_ca_certs={trusted}")
        assert (version(follower), follower.source) == (2, "store")
        await until(knows)
        primary.process.kill()
        await until(lambda: applies(store, folder))
        await eventually(lambda: version(follower) >= 3, within_s=20)
        await eventually(lambda: "policy_store_away" not in alarms.kinds(), within_s=20)
        assert await holds(replica, "{failsoft}:version:3")
    # Who does not trust the authority believes no sentinel either.
    async with opened(url) as store:
        with pytest.raises(StoreUnreachable, match="nobody names the primary"):
            await store.head()
