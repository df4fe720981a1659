"""A stand-in for Anthropic's messages API, raw enough to break off anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

from gateway.tasks import TaskSet

Script = Callable[[asyncio.StreamWriter], Coroutine[None, None, None]]

USAGE = {"input_tokens": 7, "output_tokens": 3}
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    target: str
    headers: dict[str, str]
    body: dict[str, Any]


class AnthropicApi:
    """Answers every request by ``script``, which tests replace."""

    def __init__(self) -> None:
        self.script: Script = plain("hello")
        self.seen: list[Seen] = []
        self.asked = asyncio.Event()
        self.hung_up = asyncio.Event()
        self._tasks = TaskSet()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._tasks.close()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._tasks.spawn(self._serve(reader, writer), name="anthropic")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering = TaskSet()
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            self.seen.append(Seen(head[0].split()[1], headers, body))
            self.asked.set()
            script = answering.spawn(self.script(writer), name="script")
            left = answering.spawn(self._left(reader), name="left")
            await asyncio.wait((script, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await answering.close()
            writer.close()

    async def _left(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        self.hung_up.set()


def plain(text: str | None = None, *, content: list[dict[str, Any]] | None = None, stop: str = "end_turn") -> Script:
    """A whole message."""
    blocks = content if content is not None else [{"type": "text", "text": text}]
    return status(200, _message(blocks, stop))


def status(code: int, body: dict[str, Any], *, headers: str = "") -> Script:
    """Any status with a JSON body; ``headers``: lines with their ends."""
    return raw(_response(code, body, headers))


def error_status(code: int, kind: str, *, headers: str = "", message: str = "no") -> Script:
    """An error as Anthropic words it."""
    return status(code, {"type": "error", "error": {"type": kind, "message": message}}, headers=headers)


def cut_plain() -> Script:
    """Half of a message, whose length said more."""
    whole = _response(200, _message([{"type": "text", "text": "a long answer " * 20}], "end_turn"), "")
    return raw(whole[: len(whole) // 2])


def stream(*events: dict[str, Any]) -> Script:
    """The events of a stream, and then a clean end of file."""
    return raw(STREAM_HEAD + b"".join(sse(event) for event in events))


def reset_after(*events: dict[str, Any]) -> Script:
    """The events of a stream, and then a reset in the midst of a chunked body."""

    async def script(writer: asyncio.StreamWriter) -> None:
        data = b"".join(sse(event) for event in events)
        writer.write(CHUNKED_HEAD + b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()
        await asyncio.sleep(0.1)  # so that what was sent is read before the reset discards it
        writer.transport.abort()

    return script


def endless(*events: dict[str, Any]) -> Script:
    """The events of a stream, and then text for as long as somebody listens."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + b"".join(sse(event) for event in events))
        while True:
            writer.write(sse(text_delta("more ")))
            await writer.drain()
            await asyncio.sleep(0.01)

    return script


async def silent(writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    await asyncio.Event().wait()


def raw(data: bytes) -> Script:
    """These bytes."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return script


def text_delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def opening() -> list[dict[str, Any]]:
    """What a stream of text begins with."""
    return [
        {"type": "message_start", "message": _message([], None)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]


def closing(stop: str = "end_turn") -> list[dict[str, Any]]:
    """What a whole stream ends with."""
    return [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": USAGE},
        {"type": "message_stop"},
    ]


def tool_events(name: str, *parts: str) -> list[dict[str, Any]]:
    """A stream that is one tool call, its arguments in parts."""
    block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": part}}
        for part in parts
    ]
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    return [opening()[0], start, *deltas, *closing("tool_use")]


def _message(content: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test-1",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": USAGE,
    }


def sse(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _response(code: int, body: dict[str, Any], headers: str) -> bytes:
    payload = json.dumps(body).encode()
    head = f"HTTP/1.1 {code} X\r\ncontent-type: application/json\r\nconnection: close\r\n{headers}"
    return f"{head}content-length: {len(payload)}\r\n\r\n".encode() + payload
