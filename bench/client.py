"""The load: so many connections, each asking again as soon as it has its answer.

    python -m bench.client URL --connections 32 --seconds 2 [--chunks 100] --key KEY

Writes ``begin`` when the warm-up is over, and at the end one line of JSON: how many answers and frames were read
meanwhile, in how many seconds, and what was wrong with any. Runs in a process of its own, so that neither its parsing
nor its garbage is charged to the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

import httptools
import uvloop

WARM_UP_S: Final = 0.5
PATIENCE_S: Final = 20.0


@dataclass(slots=True)
class Count:
    """What was read since the warm-up."""

    answers: int = 0
    frames: int = 0
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Asker(asyncio.Protocol):
    """One connection. ``frames``: how many a whole answer has, 0 for a plain one."""

    transport: asyncio.Transport

    def __init__(self, request: bytes, frames: int) -> None:
        self.request = request
        self.expected = frames
        self.count = Count()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.last = False
        self.frames = 0
        self.asked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not instances of it
        self.parser = httptools.HttpResponseParser(self)
        self.ask()

    def ask(self) -> None:
        self.frames = 0
        self.asked_at = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        # A frame cut in two by a read is counted once: it has one beginning.
        self.frames += body.count(b"data: ")
        self.count.frames += body.count(b"data: ")
        self.body_start = body[:300]

    def on_message_complete(self) -> None:
        self.count.answers += 1
        self.count.seconds.append(time.perf_counter() - self.asked_at)
        status = self.parser.get_status_code()
        if status != 200:
            self.count.wrong.append(f"status {status}: {self.body_start!r}")
        elif self.frames < self.expected:
            self.count.wrong.append(f"{self.frames} frames instead of {self.expected}")
        if self.last:
            self.transport.close()
        else:
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.last:
            self.count.wrong.append(f"the connection was lost: {exc}")
        if not self.done.done():
            self.done.set_result(None)


def make_request(host: str, key: str, chunks: int) -> bytes:
    """The bytes of one small chat request; of a stream of so many chunks, unless that is 0."""
    body: dict[str, object] = {
        "model": "customer_bench_v1",
        "messages": [{"role": "user", "content": "Where is my parcel? It was to be here on Monday."}],
        "max_tokens": chunks or 16,
    }
    if chunks:
        body["stream"] = True
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\naccept: */*\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def load(url: str, *, key: str, connections: int, seconds: float, chunks: int) -> dict[str, object]:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    request = make_request(address.netloc, key, chunks)
    loop = asyncio.get_running_loop()
    # The role's frame, the content's, the finish and [DONE].
    askers = [Asker(request, chunks + 3 if chunks else 0) for _ in range(connections)]
    for number, asker in enumerate(askers):
        await loop.create_connection(lambda asker=asker: asker, address.hostname, address.port)  # type: ignore[misc]
        if chunks:
            await asyncio.sleep(0.001 * (number % 5))  # so that the streams do not march in step
    await asyncio.sleep(WARM_UP_S)
    early = [complaint for asker in askers for complaint in asker.count.wrong]
    for asker in askers:
        asker.count = Count()
    sys.stdout.write("begin\n")
    sys.stdout.flush()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    counts = [asker.count for asker in askers]
    result = {
        "seconds": took,
        "answers": sum(count.answers for count in counts),
        "frames": sum(count.frames for count in counts),
        "wrong": (early + [complaint for count in counts for complaint in count.wrong])[:5],
        "median_ms": statistics.median([s for c in counts for s in c.seconds] or [0.0]) * 1000,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    for asker in askers:
        asker.last = True
    await asyncio.wait([asker.done for asker in askers], timeout=PATIENCE_S)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--key", default="none")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--chunks", type=int, default=0)
    options = parser.parse_args()
    uvloop.run(
        load(
            options.url,
            key=options.key,
            connections=options.connections,
            seconds=options.seconds,
            chunks=options.chunks,
        )
    )


if __name__ == "__main__":
    main()
