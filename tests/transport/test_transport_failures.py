"""What each way of failing is called in the one tree of errors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import errors
from gateway.errors import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    NameNotResolved,
    ProtocolError,
    TLSError,
    TooLarge,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.upstream.pool import Pool
from tests.transport.conftest import MakePool, Serve
from tests.transport.raw_server import HEAD, OK, answering, answering_and_closing, read_request, reset, until_true


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a listener whose backlog is full: the kernel drops every further SYN, as a vanished host would."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


async def test_a_refused_connection_is_a_connect_error_and_nothing_reached_the_box(
    pool_to: MakePool, soon: Callable[[], float]
) -> None:
    pool = pool_to(f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(ConnectError) as caught:
        await pool.exchange(HEAD, b"", soon())
    assert type(caught.value) is ConnectError
    assert (caught.value.retryable, caught.value.reached, pool.open) == (True, False, 0)


async def test_a_socket_file_that_is_not_there_is_a_connect_error(
    pool_to: MakePool, soon: Callable[[], float], tmp_path: Path
) -> None:
    pool = pool_to(f"unix:{tmp_path}/none")
    with pytest.raises(ConnectError, match="none"):
        await pool.exchange(HEAD, b"", soon())
    assert pool.open == 0


async def test_a_name_without_an_address_is_named(pool_to: MakePool, soon: Callable[[], float]) -> None:
    pool = pool_to("http://no-such-host.invalid:8000", connect_timeout_s=5.0)
    with pytest.raises(NameNotResolved, match=r"no-such-host\.invalid"):
        await pool.exchange(HEAD, b"", soon())
    assert pool.open == 0


async def test_a_black_hole_is_given_up_after_the_connect_time_out(
    pool_to: MakePool, soon: Callable[[], float]
) -> None:
    with black_hole() as url:
        pool = pool_to(url, connect_timeout_s=0.1)
        with pytest.raises(ConnectTimeout, match=r"0\.1 s") as caught:
            await pool.exchange(HEAD, b"", soon())
    assert not caught.value.reached
    assert pool.open == 0


async def test_a_connect_takes_no_longer_than_the_time_that_is_left(pool_to: MakePool) -> None:
    with black_hole() as url:
        pool = pool_to(url, connect_timeout_s=60.0)
        with pytest.raises(UpstreamTimeout) as caught:
            await pool.exchange(HEAD, b"", asyncio.get_running_loop().time() + 0.1)
    assert not caught.value.reached
    assert pool.open == 0


async def test_no_time_left_asks_nobody(serve: Serve, pool_to: MakePool) -> None:
    server = await serve(answering(OK))
    with pytest.raises(UpstreamTimeout):
        await pool_to(server).exchange(HEAD, b"", asyncio.get_running_loop().time() - 1)
    assert server.connections == 0


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("how", ["end of file", "reset"])
async def test_a_connection_that_breaks_before_the_headers_is_lost(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], said: bytes, how: str
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(said)
        await writer.drain()
        if how == "reset":
            reset(writer)

    pool = pool_to(await serve(handle))
    with pytest.raises(ConnectionLost) as caught:
        await pool.exchange(HEAD, b"", soon())
    assert not caught.value.stale
    assert pool.open == 0


async def test_a_reset_in_a_body_without_length_is_not_taken_for_its_end(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await go_on.wait()
        reset(writer)

    exchange = await pool_to(await serve(handle)).exchange(HEAD, b"", soon())
    assert await exchange.read() == b"hello"
    go_on.set()
    with pytest.raises(ConnectionLost, match="reset"):
        await exchange.read()


NOT_HTTP = {
    "garbage": b"\x16\x03\x01\x02\x00 what is this\r\n\r\n",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "a bad status": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "a huge length": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok",
    "a gzip transfer coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "switched protocols": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "switched protocols quietly": b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "folded header": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n bad\r\n\r\n",
}


@pytest.mark.parametrize("answer", NOT_HTTP.values(), ids=NOT_HTTP.keys())
async def test_what_is_not_a_plain_http_answer_is_a_protocol_error(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], answer: bytes
) -> None:
    pool = pool_to(await serve(answering(answer)))
    with pytest.raises(ProtocolError):
        await pool.exchange(HEAD, b"", soon())
    assert pool.open == 0


async def test_broken_chunks_are_a_protocol_error_after_the_good_ones(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n"
    exchange = await pool_to(await serve(answering(answer))).exchange(HEAD, b"", soon())
    assert await exchange.read() == b"ok"
    with pytest.raises(ProtocolError):
        await exchange.read()


async def test_an_identity_encoding_is_no_encoding(serve: Serve, pool_to: MakePool, soon: Callable[[], float]) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: Identity\r\ncontent-length: 2\r\n\r\nok"
    exchange = await pool_to(await serve(answering(answer))).exchange(HEAD, b"", soon())
    assert await exchange.read_all(2) == b"ok"


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ENDLESS = {
    "one header": (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000),
    "many headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 100),
    "the reason": (b"HTTP/1.1 200 ", b"y" * 1000),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    "trailers": (CHUNKED + b"0\r\n", b"x: y\r\n" * 100),
    "a chunk extension": (CHUNKED + b"1;", b"y" * 1000),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_never_ends_and_is_no_body_is_cut_off(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float], start: bytes, more: bytes
) -> None:
    sent = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(start)
        while True:
            writer.write(more)
            await writer.drain()
            sent += len(more)
            await asyncio.sleep(0)

    pool = pool_to(await serve(handle))
    with pytest.raises(TooLarge):
        await (await pool.exchange(HEAD, b"", soon())).read()
    assert pool.open == 0
    assert sent < 10_000_000


async def test_a_large_header_block_that_came_in_one_piece_is_refused_too(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    async def answer_with(header_bytes: int) -> int:
        answer = b"HTTP/1.1 200 OK\r\nx: %b\r\ncontent-length: 100000\r\n\r\n%b" % (b"y" * header_bytes, b"z" * 100_000)
        exchange = await pool_to(await serve(answering(answer))).exchange(HEAD, b"", soon())
        return len(await exchange.read_all(100_000))

    assert await answer_with(60_000) == 100_000
    with pytest.raises(TooLarge):
        await answer_with(70_000)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_silence_before_the_headers_is_a_time_out(serve: Serve, pool_to: MakePool, said: bytes) -> None:
    server = await serve(answering(said))
    pool = pool_to(server)
    with pytest.raises(UpstreamTimeout) as caught:
        await pool.exchange(HEAD, b"", asyncio.get_running_loop().time() + 0.05)
    assert caught.value.reached
    assert pool.open == 0
    await until_true(lambda: server.open == 0)


async def test_a_read_that_waits_past_until_is_a_time_out(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering(CHUNKED + b"1\r\na\r\n"))
    pool = pool_to(server)
    loop = asyncio.get_running_loop()
    exchange = await pool.exchange(HEAD, b"", soon())
    assert await exchange.read() == b"a"
    exchange.until = loop.time() + 0.05
    with pytest.raises(UpstreamTimeout, match="silence"):
        await exchange.read()
    assert pool.open == 0
    await until_true(lambda: server.open == 0)


async def test_until_can_be_moved_forward_and_back_under_a_pending_read(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    pool = pool_to(await serve(answering(CHUNKED)))
    loop = asyncio.get_running_loop()
    exchange = await pool.exchange(HEAD, b"", loop.time() + 0.1)
    reading = asyncio.gather(exchange.read(), return_exceptions=True)
    await asyncio.sleep(0)
    exchange.until = soon()
    assert exchange.until > loop.time() + 1
    await asyncio.sleep(0.15)
    assert not reading.done(), "the time-out that was moved away must not fire"
    exchange.until = loop.time() + 0.05
    async with asyncio.timeout(2):
        assert isinstance((await reading)[0], UpstreamTimeout)


async def test_time_in_which_nobody_reads_is_not_the_upstreams_silence(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        await go_on.wait()
        writer.write(b"1\r\na\r\n0\r\n\r\n")
        await reader.read()

    loop = asyncio.get_running_loop()
    exchange = await pool_to(await serve(handle)).exchange(HEAD, b"", loop.time() + 0.05)
    await asyncio.sleep(0.1)
    exchange.until = soon()
    go_on.set()
    assert await exchange.read() == b"a"
    assert await exchange.read() == b""


async def test_everything_that_connecting_can_raise_is_in_the_tree(
    pool_to: MakePool, soon: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    raised: list[BaseException] = [
        *(OSError(number, "x") for number in errno.errorcode),
        OSError("Multiple exceptions: a, b"),
        TimeoutError(),
        socket.gaierror(socket.EAI_AGAIN, "again"),
        UnicodeError("label too long"),
        ssl.SSLCertVerificationError(1, "verify failed"),
        ssl.SSLError(1, "handshake"),
        ssl.SSLZeroReturnError(),
        ConnectionAbortedError("SSL handshake is taking longer than 60.0 seconds"),
    ]
    for url in ("http://127.0.0.1:1", "https://127.0.0.1:1"):
        pool = pool_to(url)
        for error in raised:
            assert isinstance(pool._connect_error(error, out_of_time=False), UpstreamError), error
        assert isinstance(pool._connect_error(ssl.SSLError(1, "x"), out_of_time=False), TLSError)
        assert pool._connect_error(asyncio.CancelledError(), out_of_time=False) is None
    assert loop.is_running()


@pytest.mark.parametrize("name", ["ConnectionLost", "UpstreamTimeout", "ProtocolError", "TooLarge", "ConnectError"])
def test_every_transport_error_says_whose_fault_it_is_and_that_another_target_may_be_asked(name: str) -> None:
    error = getattr(errors, name)("x")
    assert isinstance(error, UpstreamError)
    assert (error.source, error.retryable, error.committed) == ("upstream", True, False)


async def test_a_pool_takes_no_answer_from_a_server_that_speaks_first(
    serve: Serve, pool_to: MakePool, soon: Callable[[], float]
) -> None:
    server = await serve(answering_and_closing(OK))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await reader.read()

    server.handler = handle
    pool: Pool = pool_to(server)
    with pytest.raises(UpstreamError):
        await pool.exchange(HEAD, b"", soon())
    assert pool.open == 0
