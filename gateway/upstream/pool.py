"""The connections to one origin, kept alive between requests.

The one HTTP client that this project writes itself, because relaying is what it exists for. On two shared cores a plain
request cost 16 to 23 µs of CPU and a streamed chunk 8 to 9, of which some 7.5 are what uvloop and the kernel take to
deliver it to a protocol that does nothing (``bench/relay.py``). Parsing is httptools's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from gateway.errors import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    NameNotResolved,
    PoolExhausted,
    ServerGone,
    TLSError,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.upstream.connection import Connection
from gateway.upstream.exchange import Exchange
from gateway.upstream.followed_name import FollowedName, LookUp
from gateway.upstream.origin import Origin
from gateway.upstream.tls import require_verified, verified_context

CLOSE_TIMEOUT_S = 2.0
"""How long ``Pool.close`` waits for the event loop to report its aborted sockets as closed."""


class Pool:
    """A pooled HTTP/1.1 client for one origin. To be used from one event loop.

    ``connect_timeout_s`` bounds name resolution, TCP and TLS together. ``keep_alive_s`` is how long a connection may
    lie idle: less than the 5 s after which vLLM's server closes one. ``tls`` replaces the default context of an
    ``https`` origin and has to verify its peer. With ``look_up`` a DNS name is followed: connections to an address that
    it no longer means are let go.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        connect_timeout_s: float = 1.0,
        max_connections: int = 1024,
        keep_alive_s: float = 4.0,
        tls: ssl.SSLContext | None = None,
        look_up: LookUp | None = None,
    ) -> None:
        self.origin = origin
        self.connect_timeout_s = connect_timeout_s
        self.max_connections = max_connections
        self.keep_alive_s = keep_alive_s
        self._tls: ssl.SSLContext | None = None
        if origin.scheme == "https":
            self._tls = verified_context() if tls is None else require_verified(tls)
        self._name = None if look_up is None else FollowedName.of(origin, look_up, self._leave_old_addresses)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = 0
        # Ordered by when they fell idle, the oldest first: taken from the end, expired from the beginning.
        self._idle: dict[Connection, None] = {}
        self._live: set[Connection] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._retired = False
        self._closed = False
        self._all_gone: asyncio.Future[None] | None = None

    @property
    def open(self) -> int:
        """Connections that are open or being opened."""
        return self._open

    @property
    def idle(self) -> int:
        """Open connections that wait for a request."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """Connections that serve an exchange or are being opened for one."""
        return self._open - len(self._idle)

    async def exchange(
        self,
        head: bytes,
        body: bytes,
        until: float,
        *,
        pending: set[Exchange] | None = None,
        on_overdue: Callable[[], float] | None = None,
    ) -> Exchange:
        """Send a request and wait for the header block of its answer.

        ``head``: the request line and the headers, each with its line end, without ``content-length`` and without the
        blank line. ``until``: the loop time by which the header block has to be there. The method must be one whose
        answers have a body (not HEAD or CONNECT).

        ``pending``: holds the exchange from when the request is sent until the answer is complete or has failed, so
        that somebody else can ``abort`` it while it waits. ``on_overdue``: see :class:`Exchange`.

        A request that dies on a reused connection before any byte of an answer is sent once more on a fresh one: the
        server had closed the idle connection just as it was being reused, or there is no server any more.

        :raises UpstreamError: no answer; the subclass says why. When cancelled, the connection is aborted.
        """
        loop = self._loop
        if loop is None:
            self._loop = loop = asyncio.get_running_loop()
        if body or head[:4] != b"GET ":
            request = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        else:
            request = head + b"\r\n"
        now = loop.time()
        if now >= until:
            raise _not_reached(UpstreamTimeout("no time left to ask"))
        if self._name is not None:
            self._name.used(now)
        lost: ConnectionLost | None = None
        connection = self._take(now)
        if connection is not None:
            exchange = connection.start(request, until, pending, on_overdue)
            try:
                await exchange.answered()
            except ConnectionLost as error:
                if not error.stale:
                    raise
                lost = error
            else:
                return exchange
        try:
            connection = await self._connect(loop, until)
        except ConnectError as error:
            # Of several addresses that refuse, asyncio makes an OSError without a kind.
            if lost is not None and type(error) is ConnectError and isinstance(error.__cause__, OSError):
                raise ServerGone(f"{lost}; then {error}") from error
            raise
        exchange = connection.start(request, until, pending, on_overdue)
        await exchange.answered()
        return exchange

    def retire(self) -> None:
        """Keep no connection alive from now on: idle ones are closed, those in use once their exchange has ended.

        For an origin that left the policy while requests that started under the old one still use it.
        """
        self._retired = True
        for connection in list(self._idle):
            connection.drop()
        self._stop_reaper()

    async def close(self) -> None:
        """Abort every connection, and return when all sockets are closed. Exchanges raise ``ConnectionLost``."""
        self._closed = True
        self.retire()
        if self._name is not None:
            await self._name.close()
        for connection in list(self._live):
            if connection.exchange is not None:
                connection.exchange.abort(ConnectionLost("the pool was closed"))
            connection.drop()
        if self._live:
            self._all_gone = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._all_gone], timeout=CLOSE_TIMEOUT_S)

    # What connections call.

    def give_back(self, connection: Connection) -> None:
        """Keep ``connection`` for the next request."""
        loop = connection.loop
        if self._retired or (self._name is not None and not self._name.means(connection.address)):
            connection.drop()
            return
        connection.idle_since = loop.time()
        self._idle[connection] = None
        if self._reaper is None:
            self._reaper = loop.call_at(connection.idle_since + self.keep_alive_s, self._reap, loop)

    def forget(self, connection: Connection) -> None:
        """Strike ``connection`` off the counts."""
        self._open -= 1
        self._idle.pop(connection, None)

    def gone(self, connection: Connection) -> None:
        """Note that the socket of ``connection`` is closed."""
        self._live.discard(connection)
        if self._all_gone is not None and not self._live and not self._all_gone.done():
            self._all_gone.set_result(None)

    # Inside.

    def _take(self, now: float) -> Connection | None:
        # The connection used last is the least likely to have been closed by the server, and lets the others expire.
        if self._idle:
            connection, _ = self._idle.popitem()
            if now - connection.idle_since < self.keep_alive_s:
                return connection
            connection.drop()
        return None

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        self._reaper = None
        now = loop.time()
        for connection in list(self._idle):
            expires = connection.idle_since + self.keep_alive_s
            if expires - now > 0.001:
                self._reaper = loop.call_at(expires, self._reap, loop)
                return
            connection.drop()

    def _stop_reaper(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None

    async def _connect(self, loop: asyncio.AbstractEventLoop, until: float) -> Connection:
        origin = self.origin
        if self._closed:
            raise ConnectError(f"the pool of {origin} was closed")
        if self._open >= self.max_connections:
            raise PoolExhausted(f"all {self.max_connections} connections to {origin} are in use")
        self._open += 1
        connection = Connection(self, loop)
        limit = min(loop.time() + self.connect_timeout_s, until)
        try:
            async with asyncio.timeout_at(limit):
                if origin.uds is not None:
                    await loop.create_unix_connection(lambda: connection, origin.uds)
                elif self._name is not None:
                    await self._connect_by_name(loop, connection, self._name)
                else:
                    await loop.create_connection(lambda: connection, origin.host, origin.port, ssl=self._tls)
        except BaseException as error:
            connection.drop()
            if (mapped := self._connect_error(error, out_of_time=limit == until)) is not None:
                raise mapped from error
            raise
        if connection.closed:
            raise ConnectError(f"{origin} closed the connection as soon as it was open")
        # Only now: of a connect that was cancelled, uvloop does not report the end.
        self._live.add(connection)
        return connection

    async def _connect_by_name(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, name: FollowedName
    ) -> None:
        refused: OSError | None = None
        server_hostname = None if self._tls is None else name.host
        for address in await name.current(loop.time()):
            connection.address = address
            try:
                await loop.create_connection(
                    lambda: connection, address, name.port, ssl=self._tls, server_hostname=server_hostname
                )
                return
            except (ssl.SSLError, TimeoutError):
                raise
            except OSError as error:
                refused = error  # as where it has an address of a family that this machine has no route for
        if refused is not None:
            raise refused

    def _leave_old_addresses(self) -> None:
        name = self._name
        if name is not None:
            for connection in [one for one in self._idle if not name.means(one.address)]:
                connection.drop()

    def _connect_error(self, error: BaseException, *, out_of_time: bool) -> UpstreamError | None:
        """What of the one tree ``error`` is; ``None`` for what has to pass, such as a cancellation."""
        origin = self.origin
        if isinstance(error, TimeoutError):
            if out_of_time:
                return _not_reached(UpstreamTimeout(f"no connection to {origin} in the time that was left"))
            return ConnectTimeout(f"no connection to {origin} within {self.connect_timeout_s:g} s")
        if isinstance(error, (socket.gaierror, UnicodeError)):
            return NameNotResolved(f"{origin.host} has no address")
        broken_off = isinstance(error, (ConnectionResetError, ConnectionAbortedError))
        if isinstance(error, ssl.SSLError) or (broken_off and self._tls is not None):
            return TLSError(f"no TLS with {origin}: {error}")
        if isinstance(error, OSError):
            return ConnectError(f"no connection to {origin}: {error}")
        return None


def _not_reached(error: UpstreamTimeout) -> UpstreamTimeout:
    error.reached = False
    return error
