"""Two simulated boxes and a stand-in provider that the tests share, and data planes of their own before them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.policy.compiled import CompiledPolicy, Step
from tests.dataplane.plane import ADAPTER, GENERIC_MODEL, NEXT_ADAPTER, OTHERS_ADAPTER, PROVIDER_KEY, Plane, compiled
from tests.dataplane.scripted_box import ScriptedBox, ScriptStep
from tests.support.processes import Processes, Simulator

TOKENS = 12

ServePlane = Callable[..., Awaitable[Plane]]
Connect = Callable[[Plane], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
StartScripted = Callable[..., Awaitable[ScriptedBox]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def simulators(session_processes: Processes) -> dict[str, Simulator]:
    adapters = [ADAPTER, NEXT_ADAPTER, OTHERS_ADAPTER]
    started = {name: session_processes.box(name=name, adapters=adapters, tokens=TOKENS) for name in ("a", "b")}
    started["hosted"] = session_processes.provider(
        name="hosted", api_key=PROVIDER_KEY, model=[GENERIC_MODEL, "other-mini"], tokens=TOKENS
    )
    for simulator in started.values():
        simulator.wait_ready()
    return started


@pytest.fixture
def healthy(simulators: dict[str, Simulator]) -> Iterator[dict[str, Simulator]]:
    """``a``, ``b`` and ``hosted``, without faults and with empty journals."""
    for simulator in simulators.values():
        simulator.admin.heal()
        simulator.admin.forget()
    yield simulators
    for simulator in simulators.values():
        simulator.admin.heal()


@pytest.fixture
def boxes(healthy: dict[str, Simulator]) -> list[Simulator]:
    """Both boxes."""
    return [healthy["a"], healthy["b"]]


@pytest.fixture
def hosted(healthy: dict[str, Simulator]) -> Simulator:
    """The provider."""
    return healthy["hosted"]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[ServePlane]:
    """Serve a data plane: before ``boxes`` (URLs or simulators) with ``steps``, or with a whole policy."""
    async with AsyncExitStack() as planes:

        async def start(
            boxes: Iterable[str | Simulator | ScriptedBox] = (),
            *steps: Step,
            policy: CompiledPolicy | None = None,
            options: Mapping[str, Any] | None = None,
            **durations: Any,
        ) -> Plane:
            urls = [box if isinstance(box, str) else box.url for box in boxes]
            plane = Plane(policy or compiled(urls, steps, **durations), state_dir=tmp_path, **(options or {}))
            return await planes.enter_async_context(plane)

        yield start


@pytest.fixture
async def scripted() -> AsyncIterator[StartScripted]:
    """Start a box that plays a script."""
    async with AsyncExitStack() as boxes:

        async def start(*script: ScriptStep) -> ScriptedBox:
            return await boxes.enter_async_context(ScriptedBox(*script))

        yield start


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A bare connection to a data plane, for clients that misbehave."""
    writers: list[asyncio.StreamWriter] = []

    async def to(plane: Plane) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = plane.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**16)
        writers.append(writer)
        return reader, writer

    yield to
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
