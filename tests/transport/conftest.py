"""Fixtures of the transport's tests. Each runs on asyncio's own loop and on uvloop, which differ in many corners."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool
from tests.transport.raw_server import Handler, RawServer, until_true

Serve = Callable[..., Awaitable[RawServer]]
MakePool = Callable[..., Pool]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[RawServer] = []

    async def start(handler: Handler, *, uds: Path | None = None, tls: ssl.SSLContext | None = None) -> RawServer:
        server = RawServer(handler, uds=uds, tls=tls)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def pool_to() -> AsyncIterator[MakePool]:
    pools: list[Pool] = []

    def make(server: RawServer | str, **options: Any) -> Pool:
        pool = Pool(Origin.parse(server if isinstance(server, str) else server.url), **options)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        await pool.close()
        await until_true(lambda pool=pool: pool.open == 0)  # type: ignore[misc]
        assert (pool.open, pool.idle, pool.in_use) == (0, 0, 0), "the pool's books do not balance"


@pytest.fixture
def soon() -> Callable[[], float]:
    """Loop time five seconds from now: a limit that no passing test meets."""
    return lambda: asyncio.get_running_loop().time() + 5.0
