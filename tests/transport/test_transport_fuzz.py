"""Bytes from hell, cut anywhere: the same answer, or one of our own errors, and never a hang."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.upstream.connection import Connection


class Books:
    """Stands in for the pool: counts what connections report."""

    def __init__(self) -> None:
        self.given_back = 0
        self.forgotten = 0

    def give_back(self, connection: Connection) -> None:
        self.given_back += 1

    def forget(self, connection: Connection) -> None:
        self.forgotten += 1

    def gone(self, connection: Connection) -> None:
        pass


class Wire(asyncio.Transport):
    """A transport that goes nowhere and holds its peer to the rules of flow control."""

    def __init__(self) -> None:
        super().__init__()
        self.paused = False
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def abort(self) -> None:
        self.aborted = True


Outcome = tuple[int, bytes, type[UpstreamError] | None, bool]


async def outcome(pieces: list[bytes], *, read_between: bool = False) -> Outcome:
    """Status, body, error, and whether the connection may be reused, of an answer that comes in ``pieces``."""
    loop = asyncio.get_running_loop()
    books = Books()
    connection = Connection(books, loop)
    wire = Wire()
    connection.connection_made(wire)
    exchange = connection.start(b"", loop.time() + 0.5)
    body = b""
    error: type[UpstreamError] | None = None
    try:
        for piece in pieces:
            if not wire.aborted:
                connection.data_received(piece)
            if read_between and exchange._chunks:
                body += await exchange.read()
        if not connection.closed:
            connection.eof_received()
        await exchange.answered()
        while data := await exchange.read():
            body += data
    except UpstreamError as caught:
        error = type(caught)
    connection.connection_lost(None)
    assert books.forgotten == 1
    assert connection.exchange is None
    return exchange.status, body, error, books.given_back == 1


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


BODY = b'data: {"x": 1}\n\n'
ANSWERS = [
    b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 16\r\n\r\n" + BODY,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx: y\r\n\r\n"
    b'7\r\ndata: {\r\n9;e=f\r\n"x": 1}\n\n\r\n0\r\nt: u\r\n\r\n',
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 16\r\nconnection: close\r\n\r\n" + BODY,
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + BODY,
]
REUSABLE = [True, True, False, False]
places = st.lists(st.integers(min_value=0, max_value=400), max_size=30)


@pytest.mark.parametrize(("answer", "reusable"), list(zip(ANSWERS, REUSABLE, strict=True)))
def test_an_answer_is_the_same_wherever_the_network_cuts_it(answer: bytes, reusable: bool) -> None:
    with asyncio.Runner() as runner:

        @settings(max_examples=150, deadline=None)
        @given(places=places, read_between=st.booleans())
        def check(places: list[int], read_between: bool) -> None:
            got = runner.run(outcome(cut(answer, places), read_between=read_between))
            assert got == (200, BODY, None, reusable)

        check()


@pytest.mark.parametrize("answer", ANSWERS[:3])
def test_an_answer_that_stops_early_is_never_taken_for_a_whole_one(answer: bytes) -> None:
    with asyncio.Runner() as runner:
        for end in range(len(answer)):
            _, body, error, reusable = runner.run(outcome([answer[:end]]))
            # Of a chunked answer the last CRLF is not body, but the answer is not over without it either.
            assert error is not None
            assert not reusable
            assert BODY.startswith(body)


def test_garbage_raises_nothing_outside_the_tree_and_never_hangs() -> None:
    token = st.sampled_from(
        [
            *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 101 S\r\n", b"HTTP/1.1 204 N\r\n\r\n"),
            *(b"\r\n", b"\r\n\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"),
            *(b"connection: upgrade\r\nupgrade: x\r\n", b"content-encoding: br\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"),
            *(b"x" * 70_000, b"\0", b"fffffffff\r\n"),
        ]
    )
    with asyncio.Runner() as runner:

        @settings(max_examples=400, deadline=None)
        @given(st.lists(token | st.binary(max_size=40), max_size=12), st.lists(st.integers(0, 100_000), max_size=6))
        def check(parts: list[bytes], places: list[int]) -> None:
            status, _, error, _ = runner.run(outcome(cut(b"".join(parts), places)))
            assert error is not None or status >= 200

        check()


def test_a_damaged_answer_raises_nothing_outside_the_tree() -> None:
    with asyncio.Runner() as runner:

        @settings(max_examples=300, deadline=None)
        @given(st.sampled_from(ANSWERS), st.integers(0, 200), st.integers(0, 255), places)
        def check(answer: bytes, where: int, byte: int, places: list[int]) -> None:
            where %= len(answer)
            damaged = answer[:where] + bytes([byte]) + answer[where + 1 :]
            runner.run(outcome(cut(damaged, places)))

        check()
