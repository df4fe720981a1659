"""A box that is named by DNS is followed when its name comes to mean another machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence

import pytest

from gateway.errors import ConnectError, NameNotResolved
from gateway.fleet.fleet import default_pool
from gateway.policy.compiled import BoxSpec
from gateway.upstream.followed_name import LOOK_AGAIN_S, FollowedName, look_up
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool
from tests.transport.raw_server import HEAD, OK, RawServer, answering, read_request, until_true


class NameServer:
    """Says what the name means. ``away``: it knows of none; ``silent``: it does not answer. ``asked``: how often."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.away = False
        self.silent = False
        self.asked = 0

    async def look_up(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        await asyncio.sleep(3600 if self.silent else 0)
        if self.away or not self.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return self.addresses


class Machines:
    """Two machines that serve on one port: 127.0.0.1 and 127.0.0.2."""

    def __init__(self) -> None:
        self.old, self.new = RawServer(answering(OK)), RawServer(answering(OK))

    async def start(self) -> None:
        await self.old.start()
        await self.new.start(host="127.0.0.2", port=self.old.port)


@pytest.fixture
def names() -> NameServer:
    return NameServer()


@pytest.fixture
async def machines() -> AsyncIterator[Machines]:
    made = Machines()
    await made.start()
    yield made
    await made.old.stop()
    await made.new.stop()


@pytest.fixture
async def pool(machines: Machines, names: NameServer) -> AsyncIterator[Pool]:
    made = Pool(Origin.parse(f"http://vllm-0.vllm.prod.svc:{machines.old.port}"), look_up=names.look_up)
    yield made
    await made.close()
    assert (made.open, made.idle, made.in_use) == (0, 0, 0)


async def ask(pool: Pool) -> None:
    exchange = await pool.exchange(HEAD, b"{}", asyncio.get_running_loop().time() + 5)
    assert await exchange.read_all(10) == b"ok"


async def test_a_name_that_moves_is_followed_within_seconds_though_the_old_machine_still_answers(
    pool: Pool, machines: Machines, names: NameServer
) -> None:
    names.addresses = ["127.0.0.1"]
    await ask(pool)
    names.addresses = ["127.0.0.2"]
    async with asyncio.timeout(LOOK_AGAIN_S + 5):
        while not machines.new.connections:
            await ask(pool)  # so often that no connection is ever idle for long
            await asyncio.sleep(0.01)
    await until_true(lambda: machines.old.open == 0)
    before = machines.old.connections
    await ask(pool)
    assert machines.old.connections == before


async def test_a_connection_in_use_is_let_go_only_when_its_answer_has_ended(
    pool: Pool, machines: Machines, names: NameServer
) -> None:
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK[:-2])
        await release.wait()
        writer.write(OK[-2:])
        await reader.read()

    machines.old.handler = slow
    names.addresses = ["127.0.0.1"]
    exchange = await pool.exchange(HEAD, b"{}", asyncio.get_running_loop().time() + 5)
    names.addresses = ["127.0.0.2"]
    async with asyncio.timeout(LOOK_AGAIN_S + 5):
        while not pool._name.means("127.0.0.2"):  # type: ignore[union-attr]
            pool._name.used(asyncio.get_running_loop().time())  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
    await ask(pool)
    assert machines.new.connections == 1
    release.set()
    assert await exchange.read_all(10) == b"ok"
    await until_true(lambda: machines.old.open == 0)
    assert (pool.open, pool.idle) == (1, 1)


async def test_a_name_server_that_is_away_takes_no_box_away(pool: Pool, machines: Machines, names: NameServer) -> None:
    names.addresses = ["127.0.0.1"]
    await ask(pool)
    names.away = True
    machines.old.handler = answering(OK)
    for connection in list(pool._idle):
        connection.drop()  # as after a few idle seconds
    await ask(pool)
    assert machines.old.connections == 2


async def test_a_name_that_never_had_an_address_is_said_to_have_none(pool: Pool) -> None:
    with pytest.raises(NameNotResolved, match=r"vllm-0\.vllm\.prod\.svc has no address"):
        await ask(pool)


async def test_of_several_addresses_the_next_is_tried_when_one_refuses(
    pool: Pool, machines: Machines, names: NameServer
) -> None:
    names.addresses = ["127.0.0.3", "127.0.0.2"]
    await ask(pool)
    assert machines.new.connections == 1


async def test_where_all_addresses_refuse_the_last_refusal_is_told(pool: Pool, names: NameServer) -> None:
    names.addresses = ["127.0.0.3", "127.0.0.4"]
    with pytest.raises(ConnectError):
        await ask(pool)


async def test_a_name_in_steady_use_is_not_asked_for_with_every_request(
    pool: Pool, machines: Machines, names: NameServer
) -> None:
    names.addresses = ["127.0.0.1"]
    for _ in range(100):
        await ask(pool)
    assert machines.old.connections == 1
    assert names.asked <= 2


async def test_a_name_server_that_is_silent_holds_no_new_connection_up_for_long(
    pool: Pool, machines: Machines, names: NameServer
) -> None:
    names.addresses = ["127.0.0.1"]
    await ask(pool)
    names.silent = True
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LOOK_AGAIN_S + 5):
        while names.asked < 2:
            await ask(pool)
            await asyncio.sleep(0.01)
    for connection in list(pool._idle):
        connection.drop()
    exchange = await pool.exchange(HEAD, b"{}", loop.time() + pool.connect_timeout_s)
    assert await exchange.read_all(10) == b"ok"


async def test_however_many_connections_are_opened_one_question_is_asked(
    pool: Pool, machines: Machines, names: NameServer
) -> None:
    names.addresses = ["127.0.0.1"]
    await asyncio.gather(*(ask(pool) for _ in range(20)))
    assert names.asked == 1


@pytest.mark.parametrize("url", ["http://10.0.0.11:8000", "http://[fd00::1]:8000", "unix:/run/worker.sock"])
def test_an_address_is_not_looked_up(url: str, names: NameServer) -> None:
    assert FollowedName.of(Origin.parse(url), names.look_up, lambda: None) is None


async def test_the_systems_resolver_is_asked_where_boxes_are_concerned(machines: Machines) -> None:
    assert "127.0.0.1" in await look_up("localhost", machines.old.port)
    with pytest.raises(socket.gaierror):
        await look_up("no-such-host.invalid", 80)
    pool = default_pool(BoxSpec("box", "main", f"http://localhost:{machines.old.port}", 1, 1, None))
    await ask(pool)
    assert [connection.address for connection in pool._idle] == ["127.0.0.1"]
    await pool.close()
