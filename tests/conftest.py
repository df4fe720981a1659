"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gateway.policy.embedded import EmbeddedValkey
from tests.faults.store_process import StoreProcess
from tests.support.processes import Processes

# Beside other processes an example may take long for no reason of its own. What else holds (where `CI` is set, the same
# examples each time) is as Hypothesis has it.
settings.register_profile("suite", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Subprocesses that end with the test."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def session_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Subprocesses that tests share and that end with the session."""
    with Processes(tmp_path_factory.mktemp("processes")) as started:
        yield started


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """A real store that stands in for the Redis of ``--redis``."""
    server = EmbeddedValkey(tmp_path / "redis")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def redis(processes: Processes) -> Iterator[StoreProcess]:
    """The same in a process of its own, for gateways in processes."""
    store = StoreProcess.start(processes)
    store.wait_ready()
    yield store
    store.close()
