"""One connection pool to the Redis that holds what all gateways share, and what its failures mean.

Each kind of content has a module of its own, with keys under :data:`PREFIX`: one hash tag, so that a Redis Cluster
keeps all of them in one slot and one transaction. Which servers those can be, ``redis_address`` says.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, RedisSSLContext, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.maint_notifications import MaintNotificationsConfig

from gateway.errors import StoreCorrupt, StoreReadOnly, StoreUnreachable
from gateway.policy.redis_address import HostPort, RedisAddress, read_address
from gateway.policy.redis_route import (
    ClusterRoute,
    Route,
    RoutedConnection,
    RoutedTLSConnection,
    SentinelRoute,
    TLSConnection,
)

PREFIX = "{failsoft}:"

ACL_RULES = (
    "~{failsoft}:* &{failsoft}:* +@read +@write +@transaction +@pubsub "
    "-@dangerous -scan -randomkey -dbsize +time +client|setname"
)
"""What a user of the store needs, as ``ACL SETUSER`` takes it: our keys, our channels, nothing that looks at others'
or changes the server. A cluster asks for :data:`CLUSTER_ACL_RULES` besides."""

CLUSTER_ACL_RULES = "+cluster|slots"

CONNECT_TIMEOUT_S = 1.0
ANSWER_TIMEOUT_S = 2.0
CONTENT_TIMEOUT_S = 10.0
"""For what carries whole policies, which may be megabytes."""

_IN_PIPELINE = re.compile(r"\ACommand # \d+ .*? of pipeline caused error: \(?['\"]?(.*?)['\"]?,?\)?\Z", re.DOTALL)
"""What the client puts round the server's own words."""


class RedisLink:
    """``redis`` is the client, to be used inside :meth:`mapped` only. Connects when it is first asked.

    It stays the same object when Sentinel names another primary or our slot of a cluster moves: its connections do not.
    ``url``: as :mod:`gateway.policy.redis_address` has it. Raises ValueError for any other.
    """

    def __init__(self, url: str) -> None:
        address = read_address(url)
        self.address = address.shown
        """The URL without credentials, for people."""
        self._tls = _tls(address)
        self._route = self._routed(address)
        self.redis: Redis = Redis.from_pool(self._pool(address))

    async def close(self) -> None:
        """Close all connections, in order or, where a server is silent, after a second."""
        with suppress(RedisError, OSError):  # who is gone cannot be told
            await self.redis.aclose()

    @asynccontextmanager
    async def mapped(self, limit_s: float = ANSWER_TIMEOUT_S) -> AsyncIterator[None]:
        """At most ``limit_s``, and whatever goes wrong as our own errors, which never repeat the URL's credentials.

        Raises StoreUnreachable, of that StoreReadOnly where only writing is refused, and StoreCorrupt.
        """
        try:
            async with asyncio.timeout(limit_s):
                yield
        except (RedisError, OSError) as error:  # TimeoutError is one
            failure = self._meaning(error, limit_s)
            if isinstance(failure, StoreUnreachable):
                await self._look_again(error)
            raise failure from error

    def _meaning(self, error: RedisError | OSError, limit_s: float) -> StoreUnreachable | StoreCorrupt:
        said = _said(error)
        if isinstance(error, AuthenticationError):
            return StoreUnreachable(f"the store at {self.address} refuses our credentials: {said}")
        if isinstance(error, NoPermissionError):
            return StoreUnreachable(f"the store at {self.address} lacks a permission for us (ACL): {said}")
        if isinstance(error, ReadOnlyError | OutOfMemoryError) or said.startswith(("MISCONF", "NOREPLICAS")):
            return StoreReadOnly(f"the store at {self.address} takes no writes: {said}")
        if isinstance(error, ResponseError):
            if said.startswith("WRONGTYPE"):
                return StoreCorrupt(f"the store at {self.address} holds something else under {PREFIX}*")
            return StoreUnreachable(f"the store at {self.address} refuses: {said}")
        if isinstance(error, TimeoutError):
            return StoreUnreachable(f"the store at {self.address} does not answer within {limit_s:g} s")
        return StoreUnreachable(f"the store at {self.address} cannot be reached: {said}")

    async def _look_again(self, error: RedisError | OSError) -> None:
        """Connect anew the next time: behind the same name may be another server by then, or another name is due."""
        if self._route is not None:
            self._route.doubt()
            if isinstance(error, MovedError) and error.host:
                self._route.prefer((error.host, error.port))
        with suppress(RedisError, OSError):  # they fail because what they were connected to has failed
            await self.redis.connection_pool.disconnect(inuse_connections=False)

    def _routed(self, address: RedisAddress) -> Route | None:
        if address.kind not in ("sentinel", "cluster"):
            return None
        who = address.username, address.password
        if address.kind == "sentinel":
            who = address.sentinel_username, address.sentinel_password

        def client(host: HostPort) -> Redis:
            kind = TLSConnection if self._tls else Connection
            options = _options(*who) | self._tls
            return Redis.from_pool(ConnectionPool(connection_class=kind, host=host[0], port=host[1], **options))

        return SentinelRoute(address, client) if address.kind == "sentinel" else ClusterRoute(address, client, PREFIX)

    def _pool(self, address: RedisAddress) -> ConnectionPool:
        options = _options(address.username, address.password) | self._tls
        options |= {"db": address.db, "client_name": "failsoft"}
        if self._route is not None:
            routed = RoutedTLSConnection if self._tls else RoutedConnection
            return ConnectionPool(connection_class=routed, locate=self._route.locate, **options)
        if address.kind == "socket":
            return ConnectionPool(connection_class=UnixDomainSocketConnection, path=address.path, **options)
        host, port = address.hosts[0]
        kind = TLSConnection if self._tls else Connection
        return ConnectionPool(connection_class=kind, host=host, port=port, **options)


def _said(error: RedisError | OSError) -> str:
    """The server's own words, as far as they are its."""
    if isinstance(error, OSError):
        return str(error)
    words = str(error.args[0]) if error.args else str(error)
    return _IN_PIPELINE.sub(r"\1", words.removesuffix(f" {error!r}"))


def _tls(address: RedisAddress) -> dict[str, Any]:
    """What a connection with TLS is given besides; nothing without."""
    if address.tls is None:
        return {}
    files: dict[str, Any] = {name.removeprefix("ssl_"): path for name, path in address.tls.items()}
    return {"context": RedisSSLContext(cert_reqs="required", check_hostname=True, **files)}


def _options(username: str | None, password: str | None) -> dict[str, Any]:
    return {
        "username": username,
        "password": password,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        # Limits on answers are ours: with its own, the client sends by asyncio.wait_for, which loses cancellations
        # in Python 3.11 (python/cpython#86296).
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        # What the client would say and ask of the server beyond our own commands takes permissions that nobody needs.
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
