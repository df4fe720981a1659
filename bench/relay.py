"""What the relay's client costs: CPU a request and a streamed chunk, against a bare upstream in a second process.

    python -m bench.relay [--seconds 2]

Prints, for 32 requests at a time, plain answers a second and streamed chunks a second, each with this process's CPU
time in microseconds (from ``getrusage``; in brackets what of it the kernel took). The CPU a chunk is what a stream
costs beyond a plain request, divided by its chunks.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable

import uvloop

from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool

CONNECTIONS = 32
CHUNKS = 200
FRAME = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}\n\n'  # noqa: E501
PLAIN_BODY = b'{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}'  # noqa: E501
COMMON_HEAD = b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: "
PLAIN_ANSWER = COMMON_HEAD + b"application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(PLAIN_BODY), PLAIN_BODY)
STREAM_HEAD = COMMON_HEAD + b"text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(FRAME), FRAME)
REQUEST_BODY = b'{"model":"customer_acme_v3","messages":[{"role":"user","content":"%b"}]}' % (b"word " * 100)


class Upstream(asyncio.Protocol):
    """Answers whatever is sent in one piece; a request for ``/stream`` gets its frames one a millisecond or so."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.left = 0

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"POST /stream"):
            self.transport.write(STREAM_HEAD)
            self.left = CHUNKS
            self.tick()
        else:
            self.transport.write(PLAIN_ANSWER)

    def tick(self) -> None:
        if self.transport.is_closing():
            return
        if self.left:
            self.left -= 1
            self.transport.write(CHUNK)
            asyncio.get_running_loop().call_later(0.001, self.tick)
        else:
            self.transport.write(b"0\r\n\r\n")


async def serve(ready_fd: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    os.write(ready_fd, b"%d\n" % port)
    await server.serve_forever()


async def plain(pool: Pool, head: bytes, loop: asyncio.AbstractEventLoop) -> None:
    exchange = await pool.exchange(head, REQUEST_BODY, loop.time() + 10)
    await exchange.read_all(1 << 20)


async def stream(pool: Pool, head: bytes, loop: asyncio.AbstractEventLoop) -> None:
    exchange = await pool.exchange(head, REQUEST_BODY, loop.time() + 10)
    while True:
        exchange.until = loop.time() + 10
        if not await exchange.read():
            return


async def measure(
    one: Callable[[Pool, bytes, asyncio.AbstractEventLoop], Awaitable[None]], path: bytes, port: int, seconds: float
) -> tuple[float, float, float]:
    """Requests a second, and CPU seconds of this process a request: in all, and in the kernel."""
    loop = asyncio.get_running_loop()
    pool = Pool(Origin.parse(f"http://127.0.0.1:{port}"))
    head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n" % path
    done = 0
    stop_at = loop.time() + seconds

    async def worker() -> None:
        nonlocal done
        while loop.time() < stop_at:
            await one(pool, head, loop)
            done += 1

    await asyncio.gather(*(one(pool, head, loop) for _ in range(CONNECTIONS)))
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(worker())
    after, took = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
    await pool.close()
    kernel = after.ru_stime - before.ru_stime
    return done / took, (after.ru_utime - before.ru_utime + kernel) / done, kernel / done


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--seconds", type=float, default=2.0)
    seconds = arguments.parse_args().seconds
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        uvloop.run(serve(write_fd))
    try:
        port = int(os.read(read_fd, 16))
        rate, cpu, kernel = uvloop.run(measure(plain, b"/plain", port, seconds))
        print(f"plain   {rate:9.0f} requests/s   {cpu * 1e6:6.1f} µs CPU a request ({kernel * 1e6:.1f} kernel)")
        stream_rate, stream_cpu, stream_kernel = uvloop.run(measure(stream, b"/stream", port, seconds))
        a_chunk, a_chunk_kernel = (stream_cpu - cpu) / CHUNKS, (stream_kernel - kernel) / CHUNKS
        print(
            f"stream  {stream_rate * CHUNKS:9.0f} chunks/s     {a_chunk * 1e6:6.2f} µs CPU a chunk"
            f" ({a_chunk_kernel * 1e6:.2f} kernel)"
        )
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
