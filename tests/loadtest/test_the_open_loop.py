"""Requests leave when they are due, whatever became of those before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from backend.loadtest.client import Address
from backend.loadtest.generator import Generator, Run
from backend.traffic.arrival import Arrival
from tests.support.eventually import eventually

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def arrivals(count: int, gap_s: float = 0.001) -> list[Arrival]:
    return [Arrival(n * gap_s, "acme", "acme_v3", 5, 8, streamed=False) for n in range(count)]


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


ANSWER = whole(
    json.dumps(
        {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 8}}
    ).encode()
)


async def read_request(reader: asyncio.StreamReader) -> dict[str, object]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return {"head": head.decode(), **json.loads(await reader.readexactly(length))}


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[Address]:
    open_now: set[asyncio.StreamWriter] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client hung up
        finally:
            writer.close()
            open_now.discard(writer)

    async with await asyncio.start_server(served, "127.0.0.1", 0) as listening:
        yield Address.parse(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
        await eventually(lambda: not open_now)


def no_mark() -> None:
    pass


async def run(address: Address, due: list[Arrival], **options: object) -> Run:
    return await Generator(address, {"acme": "key"}, **options).run(due, mark=no_mark)  # type: ignore[arg-type]


async def test_nobody_waits_for_anybody_elses_answer() -> None:
    # The server answers nobody before all have asked. A client with a pace of its own would ask once and wait for ever.
    arrived, everybody = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await read_request(reader)
        arrived += 1
        if arrived == 50:
            everybody.set()
        await everybody.wait()
        writer.write(ANSWER)

    async with server(serve) as address:
        result = await run(address, arrivals(50), patience_s=30)
    assert arrived == 50
    assert [sample.error for sample in result.samples] == [None] * 50
    assert all(sample.e2e_s >= 0 for sample in result.samples)


async def test_those_due_during_a_stall_are_charged_for_all_of_it() -> None:
    stall, asked = asyncio.Event(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await read_request(reader)
        asked += 1
        if asked == 20:
            stall.set()
        await stall.wait()
        writer.write(ANSWER)

    async with server(serve) as address:
        result = await run(address, arrivals(20, 0.01), patience_s=30)
    # All are answered at one moment, so who was due first has waited longest: each its own share of the stall.
    first, last = result.samples[0], result.samples[-1]
    assert first.arrival.at_s == 0.0
    assert first.e2e_s >= last.arrival.at_s


async def test_a_request_says_who_asks_for_what_and_connections_are_used_again() -> None:
    seen: list[dict[str, object]] = []
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            seen.append(await read_request(reader))
            writer.write(ANSWER)

    async with server(serve) as address:
        result = await run(address, arrivals(10, 0.03))
    assert {request["model"] for request in seen} == {"acme_v3"}
    assert {request["max_tokens"] for request in seen} == {8}
    assert "authorization: Bearer key" in str(seen[0]["head"])
    assert len({json.dumps(request["messages"]) for request in seen}) > 5, "no prompt is another's"
    assert [sample.output_tokens for sample in result.samples] == [8] * 10
    assert result.connections == connections < 10


async def test_a_server_that_closes_idle_connections_costs_no_request() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER)  # without `connection: close`: the client takes it for usable
        await writer.drain()

    async with server(serve) as address:
        result = await run(address, arrivals(30, 0.005))
    assert [sample.error for sample in result.samples] == [None] * 30


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "status 503"),
        (b"nonsense\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{", "connection lost"),
        (b"", "connection lost"),
    ],
)
async def test_what_goes_wrong_is_an_error_of_that_request(answer: bytes, said: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    async with server(serve) as address:
        result = await run(address, arrivals(1))
    assert [sample.error for sample in result.samples] == [said]


async def test_silence_ends_with_patience_and_a_dead_address_at_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(serve) as address:
        result = await run(address, arrivals(2), patience_s=0.2)
        assert [sample.error for sample in result.samples] == ["no end in time"] * 2
    result = await run(address, arrivals(1))
    assert str(result.samples[0].error).startswith("cannot connect")


async def test_too_many_in_flight_is_the_clients_own_error_and_a_stop_ends_it() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(serve) as address:
        generator = Generator(address, {"acme": "key"}, at_once=3)
        running = asyncio.get_running_loop().create_task(generator.run(arrivals(10), mark=no_mark))
        while len(generator.progress.samples) < 7:  # noqa: ASYNC110  # counts, and sets no event
            await asyncio.sleep(0.01)
        generator.stop.set()
        result = await running
    assert {sample.error for sample in result.samples} == {"not sent: too many in flight"}
    assert (len(result.samples), result.interrupted) == (7, True)


async def test_the_mark_comes_before_what_is_due_after_it() -> None:
    due_before: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER)

    async with server(serve) as address:
        generator = Generator(address, {"acme": "key"})
        await generator.run(arrivals(10, 0.01), mark_s=0.05, mark=lambda: due_before.append(generator.progress.sent))
    assert due_before == [5]


@pytest.mark.parametrize("url", ["ftp://x", "nonsense", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL"):
        Address.parse(url)
