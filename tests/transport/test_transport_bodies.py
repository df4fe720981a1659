"""What a request looks like on the wire, and how its answer's body is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import ConnectionLost, TooLarge
from tests.transport.conftest import MakePool, Serve
from tests.transport.raw_server import HEAD, OK, answering, answering_and_closing, read_request


async def test_a_request_is_sent_as_given_with_its_length(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(OK)

    pool = pool_to(await serve(handle))
    for body in (b'{"model":"m"}', b""):
        await (await pool.exchange(HEAD, body, soon())).read_all(10)
    await (await pool.exchange(b"GET /v1/models HTTP/1.1\r\nhost: h\r\n", b"", soon())).read_all(10)
    assert seen == [
        (HEAD + b"content-length: 13\r\n\r\n", b'{"model":"m"}'),
        (HEAD + b"content-length: 0\r\n\r\n", b""),
        (b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n", b""),
    ]


async def test_a_large_request_body_arrives_whole(serve: Serve, pool_to: MakePool, soon: Callable[[], float]) -> None:
    sizes: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            sizes.append(len((await read_request(reader))[1]))
            writer.write(OK)

    pool = pool_to(await serve(handle))
    for _ in range(2):
        await (await pool.exchange(HEAD, b"x" * 5_000_000, soon())).read_all(10)
    assert sizes == [5_000_000, 5_000_000]
    assert pool.open == 1


BODIES = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n5;x=y\r\nworld\r\n"
    b"0\r\na: b\r\n\r\n",
    "end of file": b"HTTP/1.1 200 OK\r\n\r\nhello world",
    "end of file, HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello world",
    "after interim answers": b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"
    b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
}


@pytest.mark.parametrize("answer", BODIES.values(), ids=BODIES.keys())
async def test_a_body_is_read_however_it_is_delimited(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], answer: bytes
) -> None:
    exchange = await pool_to(await serve(answering_and_closing(answer))).exchange(HEAD, b"{}", soon())
    assert exchange.status == 200
    assert await exchange.read_all(11) == b"hello world"
    assert await exchange.read() == b""
    assert exchange.header(b"link") is None


@pytest.mark.parametrize("answer", [BODIES["length"], BODIES["chunks"]], ids=["length", "chunks"])
async def test_a_body_that_breaks_off_is_an_error_after_all_that_had_arrived(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], answer: bytes
) -> None:
    whole = answer.index(b"world") + 3
    exchange = await pool_to(await serve(answering_and_closing(answer[:whole]))).exchange(HEAD, b"{}", soon())
    got = await exchange.read()
    while len(got) < len(b"hello wor"):
        got += await exchange.read()
    assert got == b"hello wor"
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="in the body") as caught:
            await exchange.read()
        assert not caught.value.stale


async def test_an_answer_without_a_body_ends_at_once(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering(b"HTTP/1.1 204 No Content\r\nx-a: 1\r\nX-A: 2\r\n\r\n"))
    pool = pool_to(server)
    for _ in range(3):
        exchange = await pool.exchange(HEAD, b"", soon())
        assert (exchange.status, exchange.header(b"x-a"), await exchange.read()) == (204, b"1, 2", b"")
    assert server.connections == 1


async def test_read_hands_out_all_that_is_there_and_then_waits_for_more(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n")
        await go_on.wait()
        writer.write(b"1\r\nd\r\n0\r\n\r\n")
        await reader.read()

    exchange = await pool_to(await serve(handle)).exchange(HEAD, b"", soon())
    assert await exchange.read() == b"abc"
    more = asyncio.ensure_future(exchange.read())  # noqa: TID251
    await asyncio.sleep(0)
    assert not more.done()
    go_on.set()
    assert await more == b"d"
    assert await exchange.read() == b""


async def test_a_body_over_the_readers_limit_is_refused(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 10_000)
            await writer.drain()

    server = await serve(handle)
    pool = pool_to(server)
    exchange = await pool.exchange(HEAD, b"", soon())
    with pytest.raises(TooLarge, match="1000 bytes"):
        await exchange.read_all(1000)
    assert pool.open == 0
    with pytest.raises(TooLarge):
        await exchange.read()


async def test_a_unix_socket_is_as_good_as_tcp(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], tmp_path: Path
) -> None:
    server = await serve(answering(OK), uds=tmp_path / "s")
    pool = pool_to(server)
    for _ in range(3):
        assert await (await pool.exchange(HEAD, b"{}", soon())).read_all(10) == b"ok"
    assert server.connections == 1
