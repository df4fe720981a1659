"""Reading a box's metrics over the wire: what is asked, what is told, and that nothing stops it but its owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    ConnectError,
    ConnectionLost,
    InternalFault,
    ProtocolError,
    TooLarge,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.fleet.engine_metrics import MAX_PAGE_BYTES, PATH, SHORT_PATH, EngineReading
from gateway.fleet.scrape import INTERVAL_S, JITTER, LONGEST_INTERVAL_S, Scrape, wait_s
from gateway.tasks import TaskSet
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool
from tests.transport.raw_server import Handler, RawServer, answering, read_request, reset, until_true

PAGE = b'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 2.0\n'


def page(body: bytes = PAGE, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@dataclass
class Heard:
    """What a scrape told."""

    readings: list[EngineReading] = field(default_factory=list)
    failures: list[UpstreamError] = field(default_factory=list)


@dataclass
class Scenery:
    """A server, and a scrape of it."""

    server: RawServer
    pool: Pool
    scrape: Scrape
    heard: Heard


@pytest.fixture
async def scenes() -> AsyncIterator[list[Scenery]]:
    made: list[Scenery] = []
    yield made
    for scenery in made:
        await scenery.pool.close()
        await scenery.server.stop()


async def scraping(
    scenes: list[Scenery], handler: Handler, *, base: str = "", api_key: str | None = None, timeout_s: float = 1.0
) -> Scenery:
    server = RawServer(handler)
    await server.start()
    pool, heard = Pool(Origin.parse(server.url + base)), Heard()
    scrape = Scrape(
        pool,
        on_reading=heard.readings.append,
        on_failure=heard.failures.append,
        random=lambda: 0.0,
        api_key=api_key,
        timeout_s=timeout_s,
    )
    scenery = Scenery(server, pool, scrape, heard)
    scenes.append(scenery)
    return scenery


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    reset(writer)


def recording(asked: list[bytes], answer_to: Callable[[bytes], bytes]) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            asked.append(head)
            writer.write(answer_to(head.split(b" ")[1]))
            await writer.drain()

    return handle


async def test_a_page_becomes_a_reading_with_the_time_at_which_it_was_asked_for(scenes: list[Scenery]) -> None:
    scenery = await scraping(scenes, answering(page()))
    loop = asyncio.get_running_loop()
    before = loop.time()
    await scenery.scrape.once()
    [reading] = scenery.heard.readings
    assert (reading.running, reading.waiting) == (3, 2)
    assert before <= reading.at_s <= loop.time()
    assert scenery.heard.failures == []


async def test_the_request_names_host_key_and_what_is_wanted(scenes: list[Scenery]) -> None:
    asked: list[bytes] = []
    scenery = await scraping(scenes, recording(asked, lambda path: page()), base="/box-a", api_key="box-key")
    await scenery.scrape.once()
    [head] = asked
    assert head.startswith(f"GET /box-a{SHORT_PATH} HTTP/1.1\r\n".encode())
    assert f"host: 127.0.0.1:{scenery.server.port}\r\n".encode() in head
    assert b"authorization: Bearer box-key\r\n" in head
    assert b"content-length" not in head


async def test_readings_share_one_connection(scenes: list[Scenery]) -> None:
    scenery = await scraping(scenes, answering(page()))
    for _ in range(3):
        await scenery.scrape.once()
    assert len(scenery.heard.readings) == 3
    assert scenery.server.connections == 1


@pytest.mark.parametrize("refusal", [page(b"{}", status=404), page(b"nothing of vLLM's\n")])
async def test_a_box_that_does_not_know_the_short_page_is_asked_for_the_whole_one(
    scenes: list[Scenery], refusal: bytes
) -> None:
    asked: list[bytes] = []
    scenery = await scraping(scenes, recording(asked, lambda path: page() if path == PATH.encode() else refusal))
    await scenery.scrape.once()
    await scenery.scrape.once()
    assert len(scenery.heard.readings) == 2
    assert scenery.heard.failures == []
    assert [head.split(b" ")[1].decode() for head in asked] == [SHORT_PATH, PATH, PATH]


async def test_after_a_failure_the_short_page_is_tried_again(scenes: list[Scenery]) -> None:
    asked: list[bytes] = []
    knows = [PATH.encode()]
    scenery = await scraping(scenes, recording(asked, lambda path: page() if path in knows else page(status=404)))
    await scenery.scrape.once()
    knows[:] = []
    await scenery.scrape.once()
    knows[:] = [SHORT_PATH.encode()]
    await scenery.scrape.once()
    assert len(scenery.heard.failures) == 1
    assert len(scenery.heard.readings) == 2


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (silent, UpstreamTimeout),
        (resetting, ConnectionLost),
        (answering(page(status=503)), UpstreamStatus),
        (answering(page(b"<html>")), ProtocolError),
        (answering(b"SSH-2.0-x\r\n\r\n"), ProtocolError),
        (answering(page(PAGE + b"#" * MAX_PAGE_BYTES)), TooLarge),
        (answering(page()[:-5]), UpstreamTimeout),
    ],
    ids=["silent", "resets", "503", "another page", "another protocol", "endless", "half a page"],
)
async def test_whatever_goes_wrong_is_told_and_counted(
    scenes: list[Scenery], handler: Handler, kind: type[UpstreamError]
) -> None:
    scenery = await scraping(scenes, handler, timeout_s=0.2)
    await scenery.scrape.once()
    await scenery.scrape.once()
    assert [isinstance(error, kind) for error in scenery.heard.failures] == [True, True]
    assert scenery.heard.readings == []
    assert scenery.scrape.failures == 2
    await until_true(lambda: scenery.pool.open == scenery.pool.idle)


async def test_a_box_that_is_gone_is_told_and_its_return_is_noticed(scenes: list[Scenery]) -> None:
    scenery = await scraping(scenes, answering(page()))
    port = scenery.server.port
    await scenery.server.stop()
    await scenery.scrape.once()
    assert isinstance(scenery.heard.failures[0], ConnectError)
    scenery.server._server = await asyncio.start_server(scenery.server._serve, "127.0.0.1", port)
    await scenery.scrape.once()
    assert len(scenery.heard.readings) == 1
    assert scenery.scrape.failures == 0


async def test_a_defect_in_who_listens_is_told_and_does_not_end_it(
    scenes: list[Scenery], caplog: pytest.LogCaptureFixture
) -> None:
    scenery = await scraping(scenes, answering(page()))

    def defect(_: object) -> None:
        raise KeyError("defect")

    scenery.scrape._on_reading = defect
    await scenery.scrape.once()
    assert isinstance(scenery.heard.failures[0], InternalFault)
    scenery.scrape._on_failure = defect
    await scenery.scrape.once()
    assert "what hears of failed readings failed itself" in caplog.text


async def test_it_reads_again_and_again_until_it_is_cancelled(
    scenes: list[Scenery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fleet.scrape.INTERVAL_S", 0.01)
    scenery = await scraping(scenes, answering(page()))
    tasks = TaskSet()
    tasks.spawn(scenery.scrape.run(), name="scrape")
    await until_true(lambda: len(scenery.heard.readings) >= 3)
    times = [reading.at_s for reading in scenery.heard.readings]
    assert times == sorted(times)
    await tasks.close()
    assert len(tasks) == 0
    assert scenery.heard.failures == []


async def test_cancelled_while_it_waits_for_an_answer_it_leaves_no_connection_and_tells_nothing(
    scenes: list[Scenery],
) -> None:
    scenery = await scraping(scenes, silent)
    tasks = TaskSet()
    tasks.spawn(scenery.scrape.once(), name="scrape")
    await until_true(lambda: scenery.server.open == 1)
    await tasks.close()
    await until_true(lambda: scenery.server.open == 0)
    assert scenery.pool.open == 0
    assert scenery.heard == Heard()


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_next_reading_is_about_a_second_away_and_later_while_they_fail(failures: int, jitter: float) -> None:
    wait = wait_s(failures, jitter)
    assert INTERVAL_S * (1 - JITTER) <= wait <= LONGEST_INTERVAL_S * (1 + JITTER)
    if failures == 0:
        assert wait <= INTERVAL_S * (1 + JITTER)
    assert wait_s(failures + 1, jitter) >= wait
