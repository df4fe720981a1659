"""One connection to an upstream: asyncio's callbacks, the one timer, and whose exchange it is serving."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from gateway.upstream.exchange import Exchange


class ConnectionOwner(Protocol):
    """Who keeps the connections: the pool."""

    def give_back(self, connection: Connection) -> None:
        """``connection`` may serve another exchange."""

    def forget(self, connection: Connection) -> None:
        """``connection`` serves no more; called once."""

    def gone(self, connection: Connection) -> None:
        """The socket of ``connection`` is closed."""


class Connection(asyncio.Protocol):
    """A connection that serves one exchange at a time.

    It has one timer, which is left armed from one wait to the next and looks where ``until`` is only when it fires:
    moving ``until`` forward a thousand times costs no timer at all.
    """

    __slots__ = (
        "_owner",
        "_timer",
        "address",
        "closed",
        "exchange",
        "idle_since",
        "loop",
        "reused",
        "transport",
        "wakes_at",
    )

    transport: asyncio.Transport

    def __init__(self, owner: ConnectionOwner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self.loop = loop
        self.exchange: Exchange | None = None
        self.closed = False
        self.reused = False
        self.idle_since = 0.0
        self.address: str | None = None
        """Where it leads, if that was looked up."""
        self._timer: asyncio.TimerHandle | None = None
        self.wakes_at = math.inf

    # What the pool and the exchange use.

    def start(
        self,
        request: bytes,
        until: float,
        pending: set[Exchange] | None = None,
        on_overdue: Callable[[], float] | None = None,
    ) -> Exchange:
        """Send ``request`` (all of it) and begin to take its answer; ``pending`` as in :meth:`Pool.exchange`."""
        self.exchange = exchange = Exchange(self, until, pending)
        exchange.on_overdue = on_overdue
        self.transport.write(request)
        return exchange

    def wake_by(self, when: float) -> None:
        """Have the timer fire at loop time ``when``; to be called if that is before ``wakes_at``."""
        if self._timer is not None:
            self._timer.cancel()
        self.wakes_at = when
        self._timer = self.loop.call_at(when, self._on_timer)

    def finished(self, *, reusable: bool) -> None:
        """The exchange has had its whole answer."""
        self.exchange = None
        # A request that is still being sent after its answer has come (an early 413) leaves the connection unusable.
        if reusable and not self.transport.get_write_buffer_size():
            self.reused = True
            self._owner.give_back(self)
        else:
            self.drop()

    def drop(self) -> None:
        """Abort the connection and strike it off the books. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self.exchange = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport: asyncio.Transport | None = getattr(self, "transport", None)
        if transport is not None:
            transport.abort()
        self._owner.forget(self)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if self.closed:
            # Given up while the connection was being made.
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.feed(data)
        else:
            # Bytes that answer no request: what they are is anyone's guess, so the next request must not meet them.
            self.drop()

    def eof_received(self) -> None:
        self._over(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over(exc)
        self._owner.gone(self)

    def _over(self, error: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.lost(error, reused=self.reused)
        self.drop()

    def _on_timer(self) -> None:
        self._timer = None
        self.wakes_at = math.inf
        exchange = self.exchange
        if exchange is not None and exchange.waiting:
            if exchange.overdue(self.loop.time()):
                exchange.expire()
            else:
                self.wake_by(exchange.until)
