"""Who does not read stops the upstream; who leaves ends it at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from gateway.errors import BoxEjected, ConnectionLost
from gateway.upstream.exchange import HIGH_WATER_BYTES, Exchange
from tests.transport.conftest import MakePool, Serve
from tests.transport.raw_server import HEAD, OK, answering, read_request, until_true

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def silent_after_one_chunk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(CHUNKED + b"1\r\na\r\n")
    await reader.read()


@pytest.mark.parametrize("head", [CHUNKED, b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n"])
async def test_a_reader_that_does_not_read_stops_the_upstream(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], head: bytes
) -> None:
    total, piece, written = 50_000_000, 50_000, 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(head)
        for _ in range(total // piece):
            writer.write(b"%x\r\n%b\r\n" % (piece, b"x" * piece) if head is CHUNKED else b"x" * piece)
            await writer.drain()
            written += piece
        if head is CHUNKED:
            writer.write(b"0\r\n\r\n")
        await reader.read()

    pool = pool_to(await serve(handle))
    exchange = await pool.exchange(HEAD, b"", soon())
    stalled_at = -1
    while stalled_at != written:
        stalled_at = written
        await asyncio.sleep(0.05)
    assert 0 < written < 20_000_000, "the server's writes must stall"
    assert exchange._size < HIGH_WATER_BYTES + 512 * 1024, "what waits for the reader must be bounded"
    got = 0
    while data := await exchange.read():
        got += len(data)
        assert len(data) < HIGH_WATER_BYTES + 512 * 1024
    assert (got, written) == (total, total)
    assert (pool.open, pool.idle) == (1, 1)


async def cancelled(waiting: asyncio.Task[object]) -> None:
    await asyncio.sleep(0.02)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def task(coroutine: object) -> asyncio.Task[object]:
    return asyncio.ensure_future(coroutine)  # type: ignore[call-overload,no-any-return]  # noqa: TID251


async def test_cancelling_a_wait_for_headers_closes_the_upstream_at_once(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering(b""))
    pool = pool_to(server)
    await cancelled(task(pool.exchange(HEAD, b"", soon())))
    assert pool.open == 0
    await until_true(lambda: server.connections == 1 and server.open == 0, within_s=1.0)


async def test_cancelling_a_read_closes_the_upstream_at_once(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(silent_after_one_chunk)
    pool = pool_to(server)
    exchange = await pool.exchange(HEAD, b"", soon())
    assert await exchange.read() == b"a"
    await cancelled(task(exchange.read()))
    assert pool.open == 0
    await until_true(lambda: server.open == 0, within_s=1.0)
    with pytest.raises(ConnectionLost):
        await exchange.read()


async def test_cancelling_a_connect_leaves_nothing_on_the_books(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    server = await serve(handle)
    # TLS towards a server that never answers the handshake: the connect hangs.
    pool = pool_to(f"https://127.0.0.1:{server.port}")
    await cancelled(task(pool.exchange(HEAD, b"", soon())))
    assert pool.open == 0
    await until_true(lambda: server.open == 0, within_s=1.0)


async def test_cancelling_at_any_moment_keeps_the_books_and_the_pool_sound(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering(OK))
    pool = pool_to(server)
    for turns in range(40):
        asking = task(pool.exchange(HEAD, b"", soon()))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert pool.in_use == 0
        assert pool.open == pool.idle <= 1
    assert await (await pool.exchange(HEAD, b"", soon())).read_all(10) == b"ok"
    await until_true(lambda: server.open == 1)


async def test_closing_an_unfinished_answer_aborts_it_and_may_be_repeated(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(silent_after_one_chunk)
    pool = pool_to(server)
    exchange = await pool.exchange(HEAD, b"", soon())
    exchange.close()
    exchange.close()
    assert pool.open == 0
    await until_true(lambda: server.open == 0, within_s=1.0)
    with pytest.raises(ConnectionLost):
        await exchange.read()


async def test_closing_a_whole_answer_that_was_not_read_keeps_its_connection(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering(OK))
    pool = pool_to(server)
    for _ in range(3):
        (await pool.exchange(HEAD, b"", soon())).close()
    assert (server.connections, pool.idle) == (1, 1)


async def test_an_abort_reaches_the_pending_read_and_all_later_ones(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(silent_after_one_chunk)
    pool = pool_to(server)
    exchange = await pool.exchange(HEAD, b"", soon())
    assert await exchange.read() == b"a"
    reading = task(exchange.read())
    await asyncio.sleep(0)
    exchange.abort(BoxEjected("hung"))
    exchange.abort(ConnectionLost("too late"))
    with pytest.raises(BoxEjected):
        await reading
    with pytest.raises(BoxEjected):
        await exchange.read_all(10)
    assert pool.open == 0
    await until_true(lambda: server.open == 0, within_s=1.0)


async def test_an_abort_takes_back_what_was_not_read_even_of_a_whole_answer(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    pool = pool_to(await serve(answering(OK)))
    exchange = await pool.exchange(HEAD, b"", soon())
    exchange.abort(BoxEjected("hung"))
    with pytest.raises(BoxEjected):
        await exchange.read()
    assert pool.idle == 1


async def test_exchanges_leave_no_garbage_for_the_cycle_collector(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    pool = pool_to(await serve(answering(OK)))
    await (await pool.exchange(HEAD, b"", soon())).read_all(10)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await (await pool.exchange(HEAD, b"", soon())).read_all(10)
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Exchange)]
    finally:
        gc.enable()
