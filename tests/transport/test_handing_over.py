"""Pieces of a body that are handed over by the event that brings them, and what ends that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.errors import ConnectionLost, UpstreamTimeout
from gateway.upstream.exchange import Exchange
from tests.transport.conftest import MakePool, Serve
from tests.transport.raw_server import HEAD, read_request, until_true

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Speaker:
    """A server that writes a chunk when it is told to, and ends the body, or the connection, when it is told that."""

    def __init__(self) -> None:
        self._say: asyncio.Queue[bytes | None] = asyncio.Queue()

    def say(self, *pieces: bytes) -> None:
        """Each a chunk, all in one write."""
        self._say.put_nowait(b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))

    def end(self) -> None:
        """The body is whole."""
        self._say.put_nowait(b"0\r\n\r\n")

    def break_off(self) -> None:
        """In mid-body."""
        self._say.put_nowait(None)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        while (piece := await self._say.get()) is not None:
            writer.write(piece)


@pytest.fixture
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture
async def exchange(serve: Serve, pool_to: MakePool, speaker: Speaker, soon: Callable[[], float]) -> Exchange:
    return await pool_to(await serve(speaker)).exchange(HEAD, b"", soon())


def handing(exchange: Exchange, take: Callable[[bytes], bool]) -> asyncio.Task[bool]:
    return asyncio.ensure_future(exchange.hand_over(take))  # noqa: TID251


async def test_each_piece_is_handed_over_as_it_comes_and_the_end_is_told(exchange: Exchange, speaker: Speaker) -> None:
    got: list[bytes] = []
    speaker.say(b"was there", b" before")
    waiting = handing(exchange, lambda data: not got.append(data))  # type: ignore[func-returns-value]
    await until_true(lambda: b"".join(got) == b"was there before")
    for number in range(3):
        speaker.say(b"%d" % number, b".")
        await until_true(lambda number=number: b"".join(got).endswith(b"%d." % number))  # type: ignore[misc]
    assert not waiting.done()
    speaker.end()
    assert await waiting is False
    assert b"".join(got) == b"was there before0.1.2."


async def test_who_says_no_gets_no_more_until_it_asks_again_and_loses_nothing(
    exchange: Exchange, speaker: Speaker
) -> None:
    got: list[bytes] = []

    def take_one(data: bytes) -> bool:
        got.append(data)
        return False

    speaker.say(b"one")
    assert await handing(exchange, take_one) is True
    speaker.say(b"two")
    speaker.say(b"three")
    speaker.end()
    while await exchange.hand_over(take_one):
        assert len(got) < 10
    assert (got[0], b"".join(got)) == (b"one", b"onetwothree")


async def test_what_the_taker_raises_ends_the_exchange(exchange: Exchange, speaker: Speaker) -> None:
    def refuse(data: bytes) -> bool:
        raise ValueError(data)

    waiting = handing(exchange, refuse)
    await asyncio.sleep(0)
    speaker.say(b"bad")
    with pytest.raises(ValueError, match="bad"):
        await waiting


@pytest.mark.parametrize("first", [b"", b"some"])
async def test_an_answer_that_breaks_off_is_lost_after_what_came_of_it(
    exchange: Exchange, speaker: Speaker, first: bytes
) -> None:
    got: list[bytes] = []
    waiting = handing(exchange, lambda data: not got.append(data))  # type: ignore[func-returns-value]
    if first:
        speaker.say(first)
    speaker.break_off()
    with pytest.raises(ConnectionLost):
        await waiting
    assert b"".join(got) == first


async def test_silence_past_the_limit_is_told_and_pieces_may_move_the_limit_on(
    exchange: Exchange, speaker: Speaker
) -> None:
    now = asyncio.get_running_loop().time
    exchange.until = first = now() + 1.0

    def take(data: bytes) -> bool:
        exchange.until = now() + (5.0 if data == b"go on" else 0.1)
        return True

    waiting = handing(exchange, take)
    speaker.say(b"go on")
    await until_true(lambda: now() > first + 0.1)
    assert not waiting.done(), "the first limit was moved on"
    speaker.say(b"last")
    with pytest.raises(UpstreamTimeout):
        await waiting


async def test_who_was_cancelled_is_handed_nothing_more(exchange: Exchange, speaker: Speaker) -> None:
    got: list[bytes] = []
    waiting = handing(exchange, lambda data: not got.append(data))  # type: ignore[func-returns-value]
    speaker.say(b"one")
    await until_true(lambda: got == [b"one"])
    waiting.cancel()
    speaker.say(b"two")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0.02)
    assert got == [b"one"]
