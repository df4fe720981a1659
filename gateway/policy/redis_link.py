"""One connection pool to the Redis that holds what all gateways share, and what its failures mean.

Each kind of content has a module of its own, with keys under :data:`PREFIX`: one hash tag, so that a Redis Cluster
keeps all of them in one slot and one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from gateway.errors import StoreCorrupt, StoreUnreachable

PREFIX = "{failsoft}:"

CONNECT_TIMEOUT_S = 1.0
ANSWER_TIMEOUT_S = 2.0
CONTENT_TIMEOUT_S = 10.0
"""For what carries whole policies, which may be megabytes."""


class RedisLink:
    """``redis`` is the client, to be used inside :meth:`mapped` only. Connects when it is first asked.

    ``url``: ``redis://``, ``rediss://`` or ``unix://``. Raises ValueError for any other.
    """

    def __init__(self, url: str) -> None:
        self.address = address_of(url)
        """The URL without credentials, for people."""
        self.redis: Redis = Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            # Limits on answers are ours: with its own, the client sends by asyncio.wait_for, which loses cancellations
            # in Python 3.11 (python/cpython#86296).
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            client_name="failsoft",
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.redis.aclose()

    @asynccontextmanager
    async def mapped(self, limit_s: float = ANSWER_TIMEOUT_S) -> AsyncIterator[None]:
        """At most ``limit_s``, and whatever goes wrong as our own errors, which never repeat the URL's credentials."""
        try:
            async with asyncio.timeout(limit_s):
                yield
        except AuthenticationError as error:
            raise StoreUnreachable(f"the store at {self.address} refuses our credentials: {error}") from error
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise StoreCorrupt(f"the store at {self.address} holds something else under {PREFIX}*") from error
            raise StoreUnreachable(f"the store at {self.address} refuses: {error}") from error
        except TimeoutError as error:
            raise StoreUnreachable(f"the store at {self.address} does not answer within {limit_s:g} s") from error
        except (RedisError, OSError) as error:
            raise StoreUnreachable(f"the store at {self.address} cannot be reached: {error}") from error


def address_of(url: str) -> str:
    """A store's URL without user and password. Raises ValueError when it is not one."""
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path:
        return f"unix://{parts.path}"
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError("a store's URL is redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH")
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
