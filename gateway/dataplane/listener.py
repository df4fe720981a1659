"""The listening side: uvicorn's HTTP protocol with bounds that it lacks, and a word when a client leaves.

uvicorn with httptools bounds neither request line nor header block: a header that never ends grows in memory for as
long as its sender likes. And an ASGI application learns that its client has left only by awaiting ``receive``, which
costs a task a request; here it may leave a callable in its scope instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.dataplane.answers import error_body
from gateway.dataplane.cycle import CycleProtocol
from gateway.dataplane.marks import answer_headers

log = logging.getLogger(__name__)

MAX_TARGET_BYTES = 8 * 1024
"""Bound on the target of the request line (nginx's and Apache's default): more is a 414."""

MAX_HEAD_BYTES = 32 * 1024
"""Bound on request line and headers together: more is a 431."""

MAX_HEADERS = 100
"""Bound on the number of headers (Apache's default): more is a 431."""

HEAD_TIMEOUT_S = 10.0
"""A header block that is begun, or was never begun on a new connection, has to be complete within this time."""

LINGER_S = 2.0
"""How long a refused connection is read from and thrown away, so that no RST overtakes the answer."""

ON_DISCONNECT = "failsoft.on_disconnect"
"""Key of the scope for a callable without arguments: called once if the client leaves before the answer is complete."""

_Application = Callable[[Any, Any, Any], Awaitable[None]]


class _Refused(Exception):
    """Stops the parser from within a callback; what to answer is in ``BoundedHttpProtocol._refusal``."""


class BoundedHttpProtocol(CycleProtocol):
    """uvicorn's protocol with bounded header blocks, errors in OpenAI's envelope, and :data:`ON_DISCONNECT`.

    A request to upgrade the connection is served as the plain HTTP request that it also is (RFC 9110, 7.8: a server
    may ignore it). Java's client asks for ``h2c`` with every first request; uvicorn would lose that request's body.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        # Bytes since the last request ended; and whether what is being parsed may hold a block over the bound.
        self._fed = 0
        self._may_exceed = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._refusal: tuple[int, str, str] | None = None
        self._plain_head: bytes | None = None
        self._closing = False
        # One timer a connection, which looks how long it has been idle only when it fires: uvicorn makes one a request.
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_overdue)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._idle_since = None
        size = len(data)
        self._fed += size
        self._may_exceed = self._fed > MAX_HEAD_BYTES or size > MAX_HEAD_BYTES
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse()
            return
        except httptools.HttpParserUpgrade as upgrade:
            self._serve_without_upgrade(data[upgrade.args[0] :])
            return
        if self._in_head:
            if self._fed > MAX_HEAD_BYTES:
                self._refusal = _HEAD_TOO_LARGE
                self._refuse()
            elif self._fed and self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_overdue)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        running, self._running = self._running, None
        super().connection_lost(exc)
        if running is not None and not running.response_complete:
            # uvicorn looks at the newest request only; with pipelining the one being answered is an older one.
            running.disconnected = True
            running.message_event.set()
            on_disconnect = cast("dict[str, Any]", running.scope).get(ON_DISCONNECT)
            if on_disconnect is not None:
                on_disconnect()

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            self._refusal = _TARGET_TOO_LONG
            raise _Refused

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._stop_head_timer()
        if len(self.headers) > MAX_HEADERS or (self._may_exceed and self._head_bytes() > MAX_HEAD_BYTES):
            self._refusal = _HEAD_TOO_LARGE
            raise _Refused
        if self.parser.should_upgrade():
            self._plain_head = self._head_without_upgrade()
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._fed = 0
        if self._plain_head is None:
            super().on_message_complete()

    # What the answer to a request calls.

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)

    # Inside.

    def _look_whether_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None:
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        # The last millisecond is not worth another timer: loops count in those.
        if left_s < 0.001:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(left_s, self._look_whether_idle)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _head_without_upgrade(self) -> bytes:
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise _Refused
        lines = [b"%b %b HTTP/1.1\r\n" % (method, self.url)]
        for name, value in self.headers:
            if name == b"connection":
                if b"close" in value.lower():
                    lines.append(b"connection: close\r\n")
            elif name not in (b"upgrade", b"http2-settings"):
                lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join([*lines, b"\r\n"])

    def _serve_without_upgrade(self, rest: bytes) -> None:
        head, self._plain_head = self._plain_head, None
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received((head or b"") + rest)

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self._in_head:
            self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self) -> None:
        """Answer with an error instead of the application, and be done with the connection."""
        self._closing = True
        self._stop_head_timer()
        if self._running is not None and not self._running.response_complete:
            # An answer is on its way to this client; a second one in the midst of it would corrupt it.
            self.transport.close()
            return
        status, message, code = self._refusal or _NOT_HTTP
        log.info("refused a request with status %d: %s", status, message)
        self.transport.write(_error_response(status, message, code))
        if self.transport.can_write_eof():
            # Closing now, with bytes unread, would send a RST that may reach the client before it has read why.
            self.transport.write_eof()
            self._head_timer = self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()


_NOT_HTTP = (400, "Invalid HTTP request received.", "invalid_http")
_TARGET_TOO_LONG = (414, f"The request's target is longer than {MAX_TARGET_BYTES} bytes.", "uri_too_long")
_HEAD_TOO_LARGE = (
    431,
    f"The request's headers exceed {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} in number.",
    "headers_too_large",
)


def _error_response(status: int, message: str, code: str) -> bytes:
    body = error_body(message, type="invalid_request_error", code=code)
    # It came to no call: nobody's policy was looked at, and the client's own id was not read.
    headers = answer_headers(request_id=os.urandom(8).hex(), served_by="none", attempts=0, policy="none")
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers.append((b"connection", b"close"))
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return STATUS_LINE[status] + lines + b"\r\n" + body


def uvicorn_config(
    app: _Application,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    uds: str | None = None,
    fd: int | None = None,
    shutdown_grace_s: float,
    keep_alive_s: int = 75,
    backlog: int = 2048,
) -> uvicorn.Config:
    """The configuration of one listener, for a :class:`QuietServer` in a loop that already runs.

    ``port`` 0 takes a free one. ``shutdown_grace_s``: how long running answers may go on once the server is told to
    exit. ``keep_alive_s`` is above the 60 s after which common load balancers close an idle connection, so that it is
    they who close it.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=0 if port is None else port,
        uds=uds,
        fd=fd,
        loop="none",
        http=BoundedHttpProtocol,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=backlog,
        timeout_keep_alive=keep_alive_s,
        # Declared as whole seconds, and handed to asyncio.wait_for, which takes fractions.
        timeout_graceful_shutdown=cast("int", shutdown_grace_s),
    )


NOTICE_S = 2.0
"""After the drain time: how long streams have to send their error frames, before connections are cut."""


class QuietServer(uvicorn.Server):
    """A uvicorn server that leaves signals to its owner, so that several run in one loop.

    ``await serve()`` runs it until ``should_exit`` is set; ``started_event`` is set once it listens.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.started_event = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen.

        :raises OSError: the address is taken or not ours, where uvicorn would end the process.
        """
        try:
            await super().startup(sockets)
        except SystemExit as exit_request:
            cause = exit_request.__context__
            raise (cause if isinstance(cause, OSError) else OSError("cannot listen")) from None
        self.started_event.set()

    async def listen_also(self, sock: socket.socket) -> asyncio.Server:
        """Take connections from ``sock`` too, which belongs to the server from then on, until what this gives is
        closed or all ends.
        """

        def protocol() -> asyncio.Protocol:
            return BoundedHttpProtocol(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        server = await asyncio.get_running_loop().create_server(protocol, sock=sock, backlog=self.config.backlog)
        self.servers.append(server)
        return server

    @property
    def port(self) -> int:
        """The TCP port that it listens on.

        :raises LookupError: it does not listen on TCP.
        """
        for server in self.servers:
            for listening in server.sockets:
                if listening.family in (socket.AF_INET, socket.AF_INET6):
                    return int(listening.getsockname()[1])
        raise LookupError("this server does not listen on TCP")


def quiet_server(app: _Application, *, drain_s: float) -> QuietServer:
    """A server for sockets that listen already, whose running answers may go on for ``drain_s`` and have their end
    told."""
    return QuietServer(uvicorn_config(app, host="", shutdown_grace_s=drain_s + NOTICE_S))
