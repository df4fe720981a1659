"""One connection: requests are parsed as they come, answers are played step by step."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections import deque
from itertools import chain
from typing import Protocol, cast

import httptools

from backend.simulator.answer import Answer, Generated
from backend.simulator.journal import Entry
from backend.simulator.steps import Body, Do, Event, Head, Raw, Script, Step, Until, Wait, chunk, dripped, head_bytes

BURST = 64
"""So many steps in a row, then others get their turn."""
FLUSH_POLL_S = 0.002
"""How often to look whether the kernel has taken what has to leave before a reset."""
RST = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of zero: close sends RST."""
HIGH_WATER_BYTES = 256 * 1024


class Host(Protocol):
    """The server, as a connection sees it."""

    loop: asyncio.AbstractEventLoop

    def opened(self, connection: Connection) -> None:
        """A connection was accepted."""

    def closed(self, connection: Connection) -> None:
        """Its socket is gone."""

    def arrived(self, connection: Connection, method: str, path: str) -> Entry:
        """The head of a request is there."""

    def begin(self, entry: Entry) -> tuple[Answer, Script]:
        """A request is complete: its answer, and what becomes of it."""

    def over(self, entry: Entry, answer: Answer | None, *, client_left: bool) -> None:
        """The answer to a request is over; without an answer, it never began."""

    def holds(self, connection: Connection, entry: Entry) -> bool:
        """Whether the server is frozen for this request; it then calls ``go_on`` when that is over."""


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and pipelining, one answer at a time."""

    __slots__ = (
        "_answer",
        "_awaited",
        "_chunked",
        "_due",
        "_entry",
        "_host",
        "_loop",
        "_parser",
        "_paused",
        "_pending",
        "_reading",
        "_script",
        "_timer",
        "_url",
        "asked_control",
        "closed",
        "idle_since",
        "number",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, host: Host, number: int) -> None:
        self.number = number
        self.closed = False
        self.asked_control = False
        self.idle_since: float | None = None
        self._host = host
        self._loop = host.loop
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[tuple[Entry, bool]] = deque()
        self._reading: Entry | None = None
        self._entry: Entry | None = None
        self._answer: Answer | None = None
        self._awaited: Until | None = None
        self._script: Script | None = None
        self._chunked = False
        self._paused = False
        self._due = 0.0
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._url = b""

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self._entry is not None or self._reading is not None

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        self.idle_since = self._loop.time()
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what is not HTTP gets a 400 and the connection closes."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse()
        except httptools.HttpParserError:
            self._refuse()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side left, or we did."""
        self.closed = True
        self._stop_timer()
        if self._entry is not None:
            self._finish(client_left=True)
        for entry, _ in self._pending:
            self._host.over(entry, None, client_left=True)
        self._pending.clear()
        if self._reading is not None:
            self._host.over(self._reading, None, client_left=True)
        self._host.closed(self)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is told."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        if self._timer is None:
            self.go_on()

    # httptools' callbacks

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url

    def on_message_begin(self) -> None:
        """A new request."""
        self._url = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._arrival().headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """All headers are there."""
        expect = self._arrival().header(b"expect")
        if expect is not None and expect.lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        entry = self._arrival()
        entry.body = entry.body + data if entry.body else data

    def on_message_complete(self) -> None:
        """The whole request is there."""
        entry = self._arrival()
        self._reading = None
        self._pending.append((entry, self._parser.should_keep_alive()))
        if self._entry is None:
            self._next()

    def _arrival(self) -> Entry:
        if self._reading is None:
            method = self._parser.get_method().decode("latin-1")
            self._reading = self._host.arrived(self, method, self._url.partition(b"?")[0].decode("latin-1"))
            self._reading.query = self._url.partition(b"?")[2].decode("latin-1")
            self.idle_since = None
        return self._reading

    # Playing an answer

    def go_on(self) -> None:
        """Play on from where the answer stands, or begin with the next one."""
        if self.closed:
            return
        if self._script is None and self._entry is not None:
            self._begin(self._entry)
        elif self._script is not None and self._timer is None:
            self._due = self._loop.time()
            self._play()

    def wind_down(self) -> None:
        """End a running answer of a model as a shutdown without a drain does: with ``abort``."""
        answer, entry = self._answer, self._entry
        if self.closed or entry is None or not isinstance(answer, Generated):
            return
        self._stop_timer()
        self._awaited = None
        if entry.status is None:
            self._script = answer.plain(answer.body(finish="abort"))
        else:
            self._script = chain(map(Event, answer.closing("abort")), (Do.END,))
        self.go_on()

    def reset(self) -> None:
        """Close with RST; what is not sent yet is lost."""
        if self.closed:
            return
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        self.transport.abort()

    def _next(self) -> None:
        if self._entry is not None:
            return
        if not self._pending:
            self.idle_since = self._loop.time()
            return
        self._entry, keep_alive = self._pending.popleft()
        self._entry.keep_alive = keep_alive
        self._begin(self._entry)

    def _begin(self, entry: Entry) -> None:
        if self._host.holds(self, entry):
            return
        self._answer, self._script = self._host.begin(entry)
        self._due = self._loop.time()
        self._play()

    def _play(self) -> None:
        """Do steps until one has to wait."""
        self._timer = None
        entry, script = self._entry, self._script
        if entry is None or script is None:
            return
        out: list[bytes] = []
        for _ in range(BURST):
            if self._paused or self._host.holds(self, entry) or self._awaits():
                self._send(out)
                return
            step: Step = next(script, Do.END)
            if isinstance(step, Event):
                entry.events += 1
                out.append(chunk(step.data) if self._chunked else step.data)
            elif isinstance(step, Wait):
                self._send(out)
                if step.seconds is None:
                    # Asked to go on, it waits again.
                    self._script = chain((step,), script)
                else:
                    self._wait(step.seconds)
                return
            elif isinstance(step, Until):
                self._awaited = step
            elif isinstance(step, Body):
                if step.data:
                    out.append(chunk(step.data) if self._chunked else step.data)
            elif isinstance(step, Head):
                entry.status = step.status
                self._chunked = step.length is None
                data = head_bytes(step, self._answer.dialect.server if self._answer is not None else b"")
                if not step.every_s:
                    out.append(data)
                else:
                    self._script = script = chain(dripped(data, step.every_s), script)
            elif isinstance(step, Raw):
                out.append(step.data)
            elif step is Do.END:
                if self._chunked:
                    out.append(b"0\r\n\r\n")
                self._send(out)
                self._end(entry)
                return
            else:
                self._send(out)
                self._leave(step)
                return
        self._send(out)
        self._timer = self._loop.call_soon(self._play)

    def _awaits(self) -> bool:
        awaited = self._awaited
        if awaited is None:
            return False
        if awaited.signal.count < awaited.count:
            awaited.signal.when_it_grows(self.go_on)
            return True
        self._awaited = None
        return False

    def _send(self, out: list[bytes]) -> None:
        if out and not self.closed:
            self.transport.write(b"".join(out))
        out.clear()

    def _wait(self, seconds: float) -> None:
        # Due times add up without the timer's lateness, so that tokens keep their pace.
        self._due = max(self._due + seconds, self._loop.time())
        self._timer = self._loop.call_at(self._due, self._play)

    def _leave(self, how: Do) -> None:
        """End the connection, in one of three ways, when all that was said has left."""
        if self.closed:
            return
        if how is Do.CLOSE:
            self._finish(client_left=False)
            self.transport.close()
        elif self.transport.get_write_buffer_size():
            self._script = iter((how,))
            self._timer = self._loop.call_later(FLUSH_POLL_S, self._play)
        elif how is Do.RESET:
            self._finish(client_left=False)
            self.reset()
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def _end(self, entry: Entry) -> None:
        self._finish(client_left=False)
        if not entry.keep_alive:
            self.transport.close()
        elif self._pending:
            self._loop.call_soon(self._next)
        else:
            self.idle_since = self._loop.time()

    def _finish(self, *, client_left: bool) -> None:
        entry, answer = self._entry, self._answer
        self._entry = self._answer = self._script = self._awaited = None
        self._stop_timer()
        if entry is not None:
            self._host.over(entry, answer, client_left=client_left)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self) -> None:
        text = b"Invalid HTTP request received."
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
        self.transport.close()
