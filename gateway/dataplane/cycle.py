"""One request and its answer on a connection: uvicorn's cycle, with fewer writes and a way to write without waiting.

uvicorn writes head and body one after the other, and each write is a system call. ASGI even asks for one (HTTP spec,
"Response Start"): a server must not send the head before the first body event. And it looks for characters that a
header must not have in each name and each value by itself: at once for all of them costs a fifth of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote

from httptools import parse_url
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

Push = Callable[[bytes], bool]
"""Writes a piece of a streamed body at once. False: not now, as its client is slow; it is to be sent and waited for."""

_NOT_IN_NAMES = bytes(range(0x20)) + b'\x7f()<>@,;:[]={} \t\\"'
_NOT_IN_VALUES = bytes(set(range(0x20)) - {0x09}) + b"\x7f"
"""As uvicorn has them."""


class Cycle(RequestResponseCycle):
    """Serves what uvicorn's does, to the same bytes."""

    _head: bytes | None = None

    async def send(self, message: Any) -> None:
        """ASGI's. A head is held until there is body to send with it."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"Expected ASGI message 'http.response.start', but got '{kind}'.")
            self._begin(message["status"], self.default_headers + list(message.get("headers", ())))
        elif self.response_complete:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
        elif kind != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{kind}'.")
        else:
            self._go_on(message.get("body", b""), message.get("more_body", False))

    def push(self, body: bytes) -> bool:
        """A :data:`Push`, once a streamed answer has begun; ``body`` is not empty."""
        if self.disconnected:
            return True
        if self.flow.write_paused or not self.chunked_encoding or self._head is not None:
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        names, values = b"".join([name for name, _ in headers]), b"".join([value for _, value in headers])
        if len(names.translate(None, _NOT_IN_NAMES)) != len(names):
            raise RuntimeError("Invalid HTTP header name.")
        if len(values.translate(None, _NOT_IN_VALUES)) != len(values):
            raise RuntimeError("Invalid HTTP header value.")
        lines = [STATUS_LINE[status]]
        says_close = False
        for name, value in headers:
            name = name.lower()
            if name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
            elif name == b"connection" and b"close" in [token.lower().strip() for token in value.split(b",")]:
                self.keep_alive = False
                says_close = True
            lines.append(b"%b: %b\r\n" % (name, value))
        if not self.keep_alive and not says_close:
            lines.append(b"connection: close\r\n")
        of_head = self.scope["method"] == "HEAD"
        if self.chunked_encoding is None and not of_head and status not in (204, 304):
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)
        if of_head:
            self._write(b"")  # no body comes that it could leave with

    def _go_on(self, body: bytes, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
        elif self.chunked_encoding:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self._write(data if more else data + b"0\r\n\r\n")
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("Response content longer than Content-Length")
            self._write(body)
        if more:
            return
        if self.expected_content_length != 0:
            raise RuntimeError("Response content shorter than Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _write(self, data: bytes) -> None:
        if self._head is not None:
            data = self._head + data
            self._head = None
        self.transport.write(data)


class CycleProtocol(HttpToolsProtocol):
    """uvicorn's protocol, whose requests are answered by a :class:`Cycle`."""

    def on_headers_complete(self) -> None:
        """As uvicorn's, without its root path, its limit on concurrency and upgrades, none of which is served here."""
        parser, scope = self.parser, cast("dict[str, Any]", self.scope)
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        url = parse_url(self.url)
        scope["raw_path"] = raw_path = url.path
        path = raw_path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["query_string"] = url.query or b""
        before = cast("Cycle | None", self.cycle)
        self.cycle = cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            # Of pipelined requests one is answered after the other.
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))


def push_of(send: Callable[..., Any]) -> Push | None:
    """How what is sent by ``send`` can be written at once; None where another server than ours answers.

    Not by way of the scope: it would hold its cycle, which holds it, and each request would leave work for the
    collector.
    """
    cycle = getattr(send, "__self__", None)
    return cycle.push if isinstance(cycle, Cycle) else None
