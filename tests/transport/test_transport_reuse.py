"""Which connections serve another request, which do not, and what the pool's counts say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.errors import ConnectError, ConnectionLost, PoolExhausted, ServerGone
from tests.transport.conftest import MakePool, Serve
from tests.transport.raw_server import (
    HEAD,
    OK,
    answering,
    answering_and_closing,
    read_request,
    reset,
    until_true,
)


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with a body that does not end."""
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    await reader.read()


async def test_one_connection_serves_one_request_after_another(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering(OK))
    pool = pool_to(server)
    for _ in range(20):
        exchange = await pool.exchange(HEAD, b"{}", soon())
        assert await exchange.read_all(10) == b"ok"
        exchange.close()
    assert server.connections == 1
    assert (pool.open, pool.idle, pool.in_use) == (1, 1, 0)


async def test_the_connection_used_last_is_used_next(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    answer = {b"1": asyncio.Event(), b"2": asyncio.Event(), b"3": asyncio.Event(), b"": asyncio.Event()}
    answer[b""].set()
    served_by: list[tuple[bytes, int]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = server.connections
        while True:
            _, body = await read_request(reader)
            await answer[body].wait()
            served_by.append((body, number))
            writer.write(OK)

    server = await serve(handle)
    pool = pool_to(server)
    asked = asyncio.gather(*(pool.exchange(HEAD, body, soon()) for body in (b"1", b"2", b"3")))
    for n, body in enumerate((b"1", b"3", b"2"), start=1):
        await until_true(lambda: pool.in_use == 4 - n)  # noqa: B023
        answer[body].set()
    await asked
    for _ in range(3):
        await pool.exchange(HEAD, b"", soon())
    last = dict(served_by)[b"2"]
    assert served_by[3:] == [(b"", last)] * 3
    assert server.connections == 3


async def test_a_full_pool_says_so_at_once_and_serves_again_when_one_is_free(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    pool = pool_to(await serve(hold), max_connections=2)
    first, second = [await pool.exchange(HEAD, b"", soon()) for _ in range(2)]
    assert (pool.open, pool.idle, pool.in_use) == (2, 0, 2)
    with pytest.raises(PoolExhausted) as caught:
        await pool.exchange(HEAD, b"", soon())
    assert (caught.value.source, caught.value.reached) == ("gateway", False)
    first.close()
    third = await pool.exchange(HEAD, b"", soon())
    assert third.status == 200
    second.close()
    third.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        OK + b"surplus",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok surplus",
    ],
    ids=["connection: close", "HTTP/1.0", "a second answer", "surplus bytes", "surplus after close"],
)
async def test_a_connection_is_not_reused_after(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], answer: bytes
) -> None:
    server = await serve(answering(answer))
    pool = pool_to(server)
    for n in range(1, 4):
        assert await (await pool.exchange(HEAD, b"", soon())).read_all(10) == b"ok"
        assert (server.connections, pool.open) == (n, 0)


async def test_a_connection_whose_request_is_still_being_sent_is_not_reused(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
        await asyncio.Event().wait()

    pool = pool_to(await serve(handle))
    exchange = await pool.exchange(HEAD, b"x" * 50_000_000, soon())
    assert (exchange.status, await exchange.read_all(10)) == (413, b"no")
    assert pool.open == 0


async def test_bytes_or_an_end_of_file_on_an_idle_connection_drop_it(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    speak = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        if server.connections == 1:
            await speak.wait()
            writer.write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await reader.read(0 if server.connections == 2 else -1)

    server = await serve(handle)
    pool = pool_to(server)
    await pool.exchange(HEAD, b"", soon())
    speak.set()
    await until_true(lambda: pool.open == 0)
    await pool.exchange(HEAD, b"", soon())
    await until_true(lambda: pool.open == 0)
    assert await (await pool.exchange(HEAD, b"", soon())).read_all(10) == b"ok"
    assert server.connections == 3


async def test_idle_connections_are_closed_after_the_keep_alive_time(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering(OK))
    pool = pool_to(server, keep_alive_s=0.05)
    await asyncio.gather(*(pool.exchange(HEAD, b"", soon()) for _ in range(3)))
    assert pool.open == 3
    await until_true(lambda: pool.open == 0)
    await until_true(lambda: server.open == 0)
    assert (await pool.exchange(HEAD, b"", soon())).status == 200


async def test_an_idle_connection_past_its_time_is_not_used_even_if_the_timer_is_late(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering(OK))
    pool = pool_to(server, keep_alive_s=60.0)
    await pool.exchange(HEAD, b"", soon())
    pool.keep_alive_s = 0.0
    await pool.exchange(HEAD, b"", soon())
    assert server.connections == 2
    pool.keep_alive_s = 60.0


@pytest.mark.parametrize("how", ["end of file", "reset"])
async def test_a_request_that_meets_a_connection_being_closed_is_sent_once_more_on_a_fresh_one(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], how: str
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        # The race: the server gives the connection up when the next request is already under way.
        await read_request(reader)
        if how == "reset":
            reset(writer)

    server = await serve(handle)
    pool = pool_to(server)
    await asyncio.gather(*(pool.exchange(HEAD, b"1", soon()) for _ in range(2)))
    assert pool.idle == 2
    exchange = await pool.exchange(HEAD, b"2", soon())
    assert await exchange.read_all(10) == b"ok"
    assert server.connections == 3, "the second try must not go to another pooled connection"


async def test_a_request_is_not_sent_twice_when_the_fresh_connection_dies_too(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        if server.connections == 1:
            writer.write(OK)
            await read_request(reader)
            requests += 1

    server = await serve(handle)
    pool = pool_to(server)
    await pool.exchange(HEAD, b"", soon())
    with pytest.raises(ConnectionLost) as caught:
        await pool.exchange(HEAD, b"", soon())
    assert not caught.value.stale
    assert requests == 3


async def test_a_server_that_ends_under_a_request_on_a_reused_connection_is_gone_and_did_not_close_an_idle_one(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        server.stop_listening()
        reset(writer)

    server = await serve(handle)
    pool = pool_to(server)
    await pool.exchange(HEAD, b"", soon())
    with pytest.raises(ServerGone, match="no connection to") as caught:
        await pool.exchange(HEAD, b"", soon())
    assert caught.value.reached
    with pytest.raises(ConnectError) as caught_later:
        await pool.exchange(HEAD, b"", soon())
    assert not isinstance(caught_later.value, ServerGone), "this one was never sent"


async def test_a_request_is_not_sent_again_once_a_byte_of_an_answer_came(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering(OK, b"H"))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        writer.write(b"H")

    server.handler = handle
    pool = pool_to(server)
    await pool.exchange(HEAD, b"", soon())
    with pytest.raises(ConnectionLost):
        await pool.exchange(HEAD, b"", soon())
    assert server.connections == 1


async def test_a_retired_pool_lets_running_exchanges_end_and_keeps_nothing(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await read_request(reader)
            if body:
                await go_on.wait()
            writer.write(OK)

    pool = pool_to(await serve(handle))
    await pool.exchange(HEAD, b"", soon())
    running = asyncio.gather(*(pool.exchange(HEAD, b"wait", soon()) for _ in range(2)))
    await until_true(lambda: pool.in_use == 2)
    pool.retire()
    go_on.set()
    for exchange in await running:
        assert await exchange.read_all(10) == b"ok"
    assert pool.open == 0
    assert await (await pool.exchange(HEAD, b"", soon())).read_all(10) == b"ok"
    assert pool.open == 0


async def test_a_closed_pool_ends_what_runs_and_refuses_what_comes(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(hold)
    pool = pool_to(server)
    exchange = await pool.exchange(HEAD, b"", soon())
    assert await exchange.read() == b"a"
    reading = asyncio.gather(exchange.read(), return_exceptions=True)
    await asyncio.sleep(0)
    await pool.close()
    assert isinstance((await reading)[0], ConnectionLost)
    assert pool.open == 0
    with pytest.raises(ConnectError, match="closed"):
        await pool.exchange(HEAD, b"", soon())
    await pool.close()
    await until_true(lambda: server.open == 0)


async def test_an_answer_read_late_does_not_disturb_the_next_exchange_on_its_connection(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    big = b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000
    server = await serve(answering(big))
    pool = pool_to(server)
    first = await pool.exchange(HEAD, b"", soon())
    assert len(await first.read_all(200_000)) == 200_000
    second = await pool.exchange(HEAD, b"", soon())
    assert await first.read() == b""
    first.close()
    assert len(await second.read_all(200_000)) == 200_000
    assert server.connections == 1


async def test_an_upstream_that_answers_and_leaves_is_asked_on_a_new_connection_each_time(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering_and_closing(OK))
    pool = pool_to(server)
    for _ in range(5):
        assert await (await pool.exchange(HEAD, b"", soon())).read_all(10) == b"ok"
    assert server.connections == 5
