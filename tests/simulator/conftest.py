"""One box and two providers that all tests of this folder share; each test gets them healthy and without a record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient

PROVIDER_KEY = "provider-key"


@pytest.fixture(scope="session")
def shared(session_processes: Processes) -> dict[str, Simulator]:
    """Started together, as each takes about a second."""
    simulators = {
        "box": session_processes.box(adapters=["acme", "globex"], itl_ms=1, max_model_len=100),
        "openai": session_processes.provider(api_key=PROVIDER_KEY, itl_ms=1),
        "anthropic": session_processes.provider(api_key=PROVIDER_KEY, itl_ms=1, dialect="anthropic"),
    }
    for simulator in simulators.values():
        simulator.wait_ready()
    return simulators


def healthy(simulator: Simulator) -> Iterator[Simulator]:
    """For one test."""
    simulator.admin.forget()
    yield simulator
    simulator.admin.heal()


@pytest.fixture
def box(shared: dict[str, Simulator]) -> Iterator[Simulator]:
    """A box with the adapters acme and globex."""
    yield from healthy(shared["box"])


@pytest.fixture
def provider(shared: dict[str, Simulator]) -> Iterator[Simulator]:
    """A provider that speaks OpenAI."""
    yield from healthy(shared["openai"])


@pytest.fixture
def anthropic(shared: dict[str, Simulator]) -> Iterator[Simulator]:
    """A provider that speaks Anthropic."""
    yield from healthy(shared["anthropic"])


@pytest.fixture
def client(box: Simulator) -> RawClient:
    """Asks the box."""
    return RawClient(box.url)
