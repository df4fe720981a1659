"""A box that costs next to nothing: vLLM's shapes from ready-made bytes, as fast as an asyncio protocol goes.

    python -m bench.upstream PORT

A request with ``"stream": true`` gets as many frames as its ``max_tokens``, one each ``PACE_S``, so that a relay
sees them one at a time as it would from an engine; anything else is answered at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
from typing import Final, cast

import httptools
import uvloop

PACE_S: Final = 0.005
MAX_TOKENS: Final = re.compile(rb'"max_tokens"\s*:\s*(\d+)')
STREAM: Final = re.compile(rb'"stream"\s*:\s*true')
COMMON: Final = {"id": "chatcmpl-bench", "created": 1700000000, "model": "customer_bench_v1"}


def _frame(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return b"data: " + json.dumps(COMMON | {"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _answer(body: bytes, content_type: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (content_type, len(body), body)


PLAIN: Final = _answer(
    json.dumps(
        COMMON
        | {
            "object": "chat.completion",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "A short answer."}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16},
        }
    ).encode(),
    b"application/json",
)
MODELS: Final = _answer(
    json.dumps(
        {"object": "list", "data": [{"id": name, "object": "model"} for name in ("base", "customer_bench_v1")]}
    ).encode(),
    b"application/json",
)
EMPTY: Final = _answer(b"", b"text/plain")
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
FIRST: Final = HEAD + _chunk(_frame({"role": "assistant", "content": ""}))
TOKEN: Final = _chunk(_frame({"content": " token"}))
LAST: Final = _chunk(_frame({}, "stop")) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection, one request at a time."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not instances of it
        self.parser = httptools.HttpRequestParser(self)
        self.loop = asyncio.get_running_loop()
        self.left = 0

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self.url = b""
        self.body = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.parser.get_method() != b"POST":
            self.transport.write(MODELS if self.url.endswith(b"/models") else EMPTY)
        elif STREAM.search(self.body):
            asked = MAX_TOKENS.search(self.body)
            self.left = int(asked[1]) if asked else 16
            self.transport.write(FIRST)
            self.loop.call_later(PACE_S, self.tick)
        else:
            self.transport.write(PLAIN)

    def tick(self) -> None:
        if self.transport.is_closing():
            return
        self.left -= 1
        self.transport.write(TOKEN)
        if self.left > 0:
            self.loop.call_later(PACE_S, self.tick)
        else:
            self.transport.write(LAST)


async def main(port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=1024)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main(int(sys.argv[1])))
