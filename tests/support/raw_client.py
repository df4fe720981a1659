"""A client that keeps every byte and says how the answer ended; it repairs nothing and retries nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import httptools

End = Literal["complete", "truncated", "reset", "garbage", "timeout", "left", "refused"]
"""How an answer ended: whole as its framing has it; end of file before that; a reset; not HTTP; our patience;
our own leaving; no connection."""


@dataclass(slots=True)
class Recording:
    """One answer as it came. Times are seconds since the request was sent; ``started`` is ``time.monotonic``'s."""

    started: float = 0.0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    end: End = "refused"
    head_s: float | None = None
    ended_s: float = 0.0

    @property
    def body(self) -> bytes:
        """The body without its framing."""
        return b"".join(piece for _, piece in self.pieces)

    def json(self) -> Any:
        """The body, decoded. Raises ValueError."""
        return json.loads(self.body)

    def arrival_s(self, needle: bytes) -> float | None:
        """When the body first held ``needle``."""
        so_far = b""
        for at, piece in self.pieces:
            so_far += piece
            if needle in so_far:
                return at
        return None

    @property
    def longest_silence_s(self) -> float:
        """The longest time without a byte of the body, from the first one on, the end included."""
        times = [at for at, _ in self.pieces]
        return max(
            (later - earlier for earlier, later in zip(times, [*times[1:], self.ended_s], strict=True)), default=0
        )


class _Parser:
    """httptools' callbacks, writing into a recording."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.parser = httptools.HttpResponseParser(self)
        self.complete = False
        self.headed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self.recording.headers
        known[key] = f"{known[key]}, {text}" if key in known else text

    def on_headers_complete(self) -> None:
        self.headed = True
        self.recording.status = self.parser.get_status_code()
        self.recording.head_s = time.monotonic() - self.recording.started

    def on_body(self, data: bytes) -> None:
        self.recording.pieces.append((time.monotonic() - self.recording.started, data))

    def on_message_complete(self) -> None:
        self.complete = True

    @property
    def until_eof(self) -> bool:
        """Whether the end of file is what ends this body."""
        headers = self.recording.headers
        return self.headed and not {"content-length", "transfer-encoding"} & headers.keys()


class RawClient:
    """Asks one server, each time over a connection of its own. ``url``: without /v1."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._key = key

    async def chat(self, model: str, *, text: str = "hello", stream: bool = True, **fields: Any) -> Recording:
        """A chat request. What ``ask`` takes besides the body is taken out of ``fields``."""
        options = {name: fields.pop(name) for name in OPTIONS if name in fields}
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        if stream:
            body["stream"] = True
        return await self.ask("/v1/chat/completions", body, **options)

    async def ask(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
        leave_after: bytes | None = None,
        leave_with_reset: bool = False,
        read_bytes_per_s: float | None = None,
        timeout_s: float = 20.0,
    ) -> Recording:
        """Send a request and record the answer.

        ``raw``: bytes to send instead of a request made from the other arguments. ``leave_after``: go away as soon as
        the answer (head included) holds these bytes. ``read_bytes_per_s``: read no faster. ``timeout_s``: patience.
        """
        sent = raw if raw is not None else self._request(path, body, method, headers or {})
        recording = Recording(started=time.monotonic())
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=2**16)
        except OSError:
            recording.ended_s = time.monotonic() - recording.started
            return recording
        parser = _Parser(recording)
        try:
            async with asyncio.timeout(timeout_s):
                writer.write(sent)
                await writer.drain()
                recording.end = await self._read(reader, parser, leave_after, read_bytes_per_s)
        except TimeoutError:
            recording.end = "timeout"
        except ConnectionError:
            recording.end = "reset"
        except httptools.HttpParserError:
            recording.end = "garbage"
        finally:
            recording.ended_s = time.monotonic() - recording.started
            if leave_with_reset and recording.end == "left":
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            # One turn of the loop, so that the socket is closed when this returns.
            await asyncio.sleep(0)
        return recording

    async def _read(
        self, reader: asyncio.StreamReader, parser: _Parser, leave_after: bytes | None, bytes_per_s: float | None
    ) -> End:
        recording = parser.recording
        while not parser.complete:
            data = await reader.read(65536 if bytes_per_s is None else max(1, int(bytes_per_s / 10)))
            if not data:
                return "complete" if parser.until_eof else "truncated"
            recording.raw += data
            parser.parser.feed_data(data)
            if leave_after is not None and leave_after in recording.raw:
                return "left"
            if bytes_per_s is not None:
                await asyncio.sleep(len(data) / bytes_per_s)
        return "complete"

    def _request(self, path: str, body: Any, method: str | None, headers: dict[str, str]) -> bytes:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {"host": f"{self._host}:{self._port}", "content-length": str(len(content))}
        if body is not None:
            all_headers["content-type"] = "application/json"
        if self._key is not None:
            all_headers["authorization"] = f"Bearer {self._key}"
        all_headers |= headers
        verb = method or ("GET" if body is None else "POST")
        lines = [f"{verb} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in all_headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


OPTIONS = ("headers", "leave_after", "leave_with_reset", "read_bytes_per_s", "timeout_s")
