"""Connections that first ask where to connect: to the primary that Sentinel names, or to the node that has our slot.

All our keys share one hash tag, so one node of a cluster has them all: a plain client with transactions, WATCH and
pub/sub works there as on a single server. When anything fails, the link drops its connections and the next one asks
again, which is how a fail-over and a slot that moves are followed.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, RedisSSLContext, SSLConnection
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, ConnectionError, RedisError

from gateway.policy.redis_address import HostPort, RedisAddress

ASK_S = 0.5
"""For one sentinel or node to say where to go: several have to fit into what one answer may take."""

NewClient = Callable[[HostPort], Redis]


class Route(ABC):
    """Asks ``hosts`` in turn, beginning with the one that answered last. ``whom``: in words, for errors."""

    def __init__(self, hosts: tuple[HostPort, ...], whom: str) -> None:
        self._hosts = list(hosts)
        self._whom = whom

    async def locate(self) -> HostPort:
        """Where to connect now. Raises redis' ConnectionError, with what each of those that were asked said."""
        said = []
        for host in list(self._hosts):
            try:
                async with asyncio.timeout(ASK_S):
                    found = await self._ask(host)
            except TimeoutError:
                said.append(f"{_text(host)} does not answer")
            except AuthenticationError:
                said.append(f"{_text(host)} refuses our credentials")
            except (RedisError, OSError) as error:
                said.append(f"{_text(host)} says: {error}")
            else:
                if found is not None:
                    self.prefer(host)
                    return found
                said.append(f"{_text(host)} knows none")
        raise ConnectionError(f"nobody names {self._whom}: {'; '.join(said)}")

    def prefer(self, host: HostPort) -> None:
        """Ask this one first."""
        self._hosts = [host, *(other for other in self._hosts if other != host)]

    def doubt(self) -> None:
        """What the first one said did not help: ask another first."""
        self._hosts.append(self._hosts.pop(0))

    @abstractmethod
    async def _ask(self, host: HostPort) -> HostPort | None:
        """The server, as ``host`` names it; None: it knows none."""


class SentinelRoute(Route):
    """To the primary of a service, by redis.io's guidelines for Sentinel clients: whichever sentinel answers first."""

    def __init__(self, address: RedisAddress, client: NewClient) -> None:
        super().__init__(address.hosts, f"the primary of {address.service}")
        self._service = address.service
        self._client = client

    async def _ask(self, host: HostPort) -> HostPort | None:
        async with self._client(host) as sentinel:
            found = await _raw(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        return None if not found else (_str(found[0]), int(found[1]))


MOST_NODES = 16
"""Of a cluster that are remembered as ones to ask, besides those of the URL."""


class ClusterRoute(Route):
    """To the node that has the slot of ``key``. The nodes that the last answer named are more to ask."""

    def __init__(self, address: RedisAddress, client: NewClient, key: str) -> None:
        super().__init__(address.hosts, "the node of the cluster that has our slot")
        self._slot: int = key_slot(key.encode())
        self._given = address.hosts
        self._client = client

    async def _ask(self, host: HostPort) -> HostPort | None:
        async with self._client(host) as node:
            ranges = await _raw(node, "CLUSTER", "SLOTS")
        found: HostPort | None = None
        met: list[HostPort] = []
        for first, last, *nodes in ranges:
            # A node that does not know its own name leaves it out: it is the one that was asked.
            here = [(_str(node[0]) or host[0], int(node[1])) for node in nodes]
            met += here
            if int(first) <= self._slot <= int(last) and here:
                found = here[0]
        self._hosts = list(dict.fromkeys([host, *dict.fromkeys(met[:MOST_NODES]), *self._given]))
        return found


class TLSConnection(SSLConnection):
    """With what all connections of a link share: reading the authorities takes a tenth of a second, each time."""

    def __init__(self, *, context: RedisSSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context = context


class RoutedConnection(Connection):
    """A connection to wherever ``locate`` says at the time."""

    def __init__(self, *, locate: Callable[[], Awaitable[HostPort]], **options: Any) -> None:
        super().__init__(**options)
        self._locate = locate

    async def _connect(self) -> None:
        self.host, self.port = await self._locate()
        await super()._connect()  # type: ignore[no-untyped-call]


class RoutedTLSConnection(RoutedConnection, TLSConnection):
    """The same with TLS: the certificate has to bear the name under which the node was announced."""


async def _raw(client: Redis, *command: str) -> Any:
    """The answer as the server gave it: the client's own reading of these differs between its versions."""
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]


def _str(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _text(host: HostPort) -> str:
    return f"{host[0]}:{host[1]}"
