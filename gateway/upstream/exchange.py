"""One request's answer: the parser's callbacks on one side, ``read`` on the other.

An exchange is the target of an httptools parser of its own (half a microsecond to make), so that no state of one
answer can leak into the next one on the same connection. Everything here runs once a request or once a chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.errors import ConnectionLost, ProtocolError, TooLarge, UpstreamError, UpstreamTimeout

if TYPE_CHECKING:
    from gateway.upstream.connection import Connection

HIGH_WATER_BYTES = 64 * 1024
"""More body than this waiting to be read stops reading from the socket."""

MAX_HEAD_BYTES = 64 * 1024
"""Bound on a header block, and on any run of bytes that brings no body: interim answers, trailers, chunk extensions."""


class _Refused(Exception):
    """Stops the parser from within a callback; why is in ``Exchange._refusal``."""


class Exchange:
    """The answer to one request. One task reads it.

    ``status`` is there once :meth:`gateway.upstream.pool.Pool.exchange` has returned. Every error is an
    :class:`~gateway.errors.UpstreamError`.
    """

    __slots__ = ("_chunks", "_connection", "_ended", "_error", "_headers", "_parser", "_paused", "_pending", "_quiet",
                 "_refusal", "_reusable", "_size", "_take", "_until", "_waiter", "on_overdue", "status")  # fmt: skip

    def __init__(self, connection: Connection, until: float, pending: set[Exchange] | None = None) -> None:
        self.status = 0
        self.on_overdue: Callable[[], float] | None = None
        """Asked once, when a wait goes past ``until``, until when to wait on; the past is no later time."""
        self._pending = pending
        if pending is not None:
            pending.add(self)
        self._connection: Connection | None = connection
        self._until = until
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        # Bytes since the last piece of body: how a header block or trailer that never ends is noticed.
        self._quiet = 0
        self._ended = False
        self._reusable = False
        self._paused = False
        self._error: UpstreamError | None = None
        self._refusal: UpstreamError | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._take: Callable[[bytes], bool] | None = None
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    # What the reader of an answer uses.

    @property
    def until(self) -> float:
        """Loop time past which a pending ``read`` raises ``UpstreamTimeout``; assign to move it, forward or back."""
        return self._until

    @until.setter
    def until(self, when: float) -> None:
        self._until = when
        connection = self._connection
        if self._waiter is not None and connection is not None and when < connection.wakes_at:
            connection.wake_by(when)

    def header(self, name: bytes) -> bytes | None:
        """The value of the header ``name`` (in lower case); several of one name are joined by a comma."""
        return self._headers.get(name)

    async def read(self) -> bytes:
        """All of the body that has arrived since the last call, waiting for some if there is none; ``b""`` at its end.

        :raises UpstreamTimeout: nothing came by ``until``; the exchange is over then.
        :raises ConnectionLost: the connection broke before the body was complete; raised after all that had arrived.
        :raises ProtocolError: what came is not HTTP.
        """
        chunks = self._chunks
        connection = self._connection
        if not chunks and connection is not None:
            await self._next(connection)
        if chunks:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self._size = 0
            if self._paused:
                self._resume()
            return data
        if self._error is not None:
            raise self._error
        return b""

    async def hand_over(self, take: Callable[[bytes], bool]) -> bool:
        """Call ``take`` with what has arrived, as :meth:`read` would give it, until it says False; whether it did, as
        otherwise the body has ended.

        What comes while this waits is handed over by the very event that brings it: no task wakes up for it, which
        costs a third of relaying it. Raises as :meth:`read`, and whatever ``take`` raises.
        """
        while True:
            connection = self._connection
            if not self._chunks and connection is not None:
                self._take = take
                try:
                    if await self._next(connection):
                        return True
                finally:
                    self._take = None
            elif not (data := await self.read()):
                return False
            elif not take(data):
                return True

    async def read_all(self, limit: int) -> bytes:
        """The rest of the body, of at most ``limit`` bytes.

        :raises TooLarge: there is more; the connection is aborted.
        :raises UpstreamError: as :meth:`read`.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            data = await self.read()
            if not data:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            size += len(data)
            if size > limit:
                error = TooLarge(f"a body of more than {limit} bytes")
                self.abort(error)
                raise error
            if self._ended and not parts and not self._chunks:
                return data
            parts.append(data)

    def close(self) -> None:
        """Be done with this answer: unless its body had ended, the connection is aborted at once. Idempotent."""
        if not self._ended and self._error is None:
            self.abort(ConnectionLost("the exchange was closed"))

    def abort(self, error: UpstreamError) -> None:
        """End the exchange from outside: a pending read and all later ones raise ``error``, unless it failed before."""
        if self._error is None:
            self._chunks.clear()
            self._size = 0
            if self._ended:
                self._error = error
            else:
                self.fail(error)

    # What the connection and the pool use.

    async def answered(self) -> None:
        """Wait for the header block.

        :raises UpstreamError: it did not come.
        """
        connection = self._connection
        if not self.status and connection is not None:
            await self._next(connection)
        if self._error is not None and not self.status:
            raise self._error

    def feed(self, data: bytes) -> None:
        """Take bytes off the wire."""
        parser = self._parser
        if parser is None:
            return
        self._quiet += len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._ended:
                self.fail(self._refusal or ProtocolError(f"not an HTTP/1.1 answer: {error}"))
                return
            self._reusable = False
        take, waiter, chunks = self._take, self._waiter, self._chunks
        # Who waits may have been cancelled, and not have heard of it yet.
        if take is not None and chunks and waiter is not None and not waiter.done():
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self._size = 0
            try:
                if not take(body):
                    self._wake(stopped=True)
            except Exception as error:
                self._waiter = None
                waiter.set_exception(error)
        if self._ended:
            self._finish()
            self._wake()
        elif self._quiet > MAX_HEAD_BYTES:
            self.fail(TooLarge(f"more than {MAX_HEAD_BYTES} bytes that are not body"))
        elif self._size > HIGH_WATER_BYTES and not self._paused and self._connection is not None:
            self._paused = True
            self._connection.transport.pause_reading()

    def lost(self, error: Exception | None, *, reused: bool) -> None:
        """The connection is gone; ``error`` is ``None`` where the peer ended it in order."""
        headers = self._headers
        framed = b"content-length" in headers or b"transfer-encoding" in headers
        if error is None and self.status and not framed:
            # Neither length nor chunks: the end of the connection is the end of the body (RFC 9112, 6.3, rule 8).
            self._ended = True
            self._finish()
            self._wake()
            return
        what = "the connection was reset" if error is not None else "end of file"
        where = "in the body" if self.status else "before the answer's headers were complete"
        lost = ConnectionLost(f"{what} {where}", stale=reused and not self.status and not self._quiet)
        lost.__cause__ = error
        self.fail(lost)

    def overdue(self, now: float) -> bool:
        """Whether a pending wait has to end. The last millisecond is not worth another timer: loops count in those."""
        return self._until - now < 0.001

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for bytes."""
        return self._waiter is not None

    def expire(self) -> None:
        """End a wait that went past ``until``, unless somebody says that it may last longer."""
        ask, self.on_overdue = self.on_overdue, None
        if ask is not None and (until := ask()) > self._until:
            self.until = until
            return
        self.fail(UpstreamTimeout("silence in the body" if self.status else "no answer in time"))

    def fail(self, error: UpstreamError) -> None:
        """End the exchange with ``error``, which a reader meets after what had already arrived."""
        if self._ended or self._error is not None:
            return
        self._error = error
        self._parser = None
        if self._pending is not None:
            self._pending.discard(self)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._ended:
            # Bytes past the end of the answer: whatever they are, nobody asked for them.
            raise _Refused

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer
        name = name.lower()
        headers = self._headers
        headers[name] = headers[name] + b", " + value if name in headers else value

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        if parser is None:
            return
        status = parser.get_status_code()
        if status < 200:
            if status == 101:
                self._refuse(ProtocolError("switched protocols unasked"))
            headers.clear()
            return
        if self._quiet > MAX_HEAD_BYTES:
            # The read that ended the block may have brought body too, so count the block itself.
            size = sum(len(name) + len(value) + 4 for name, value in headers.items())
            if size > MAX_HEAD_BYTES:
                self._refuse(TooLarge(f"a header block of {size} bytes"))
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            self._refuse(ProtocolError("an encoded body, which was not asked for"))
        if b"transfer-encoding" in headers and headers[b"transfer-encoding"].lower() != b"chunked":
            self._refuse(ProtocolError("a transfer coding other than chunked"))
        self.status = status
        self._wake()

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        self._quiet = 0
        if self._waiter is not None and self._take is None:
            self._wake()

    def on_message_complete(self) -> None:
        parser = self._parser
        if self.status and parser is not None:
            self._ended = True
            # To be asked here: the parser forgets it when it goes on to the next message.
            self._reusable = parser.should_keep_alive()
            if self._waiter is not None and self._take is None:
                self._wake()

    # Inside.

    def _refuse(self, error: UpstreamError) -> None:
        self._refusal = error
        raise _Refused

    async def _next(self, connection: Connection) -> bool:
        """Wait for what is next; whether whom it was handed to wants no more."""
        waiter: asyncio.Future[bool] = connection.loop.create_future()
        self._waiter = waiter
        if self._until < connection.wakes_at:
            connection.wake_by(self._until)
        try:
            return await waiter
        except BaseException:
            self.close()
            raise

    def _wake(self, *, stopped: bool = False) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(stopped)

    def _resume(self) -> None:
        self._paused = False
        if self._connection is not None:
            self._connection.transport.resume_reading()

    def _finish(self) -> None:
        # Parser and exchange hold each other: let go here, so that no request leaves work for the cycle collector.
        self._parser = None
        if self._pending is not None:
            self._pending.discard(self)
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._paused:
                self._paused = False
                connection.transport.resume_reading()
            connection.finished(reusable=self._reusable)
