"""Gateways as processes on one store, and the stand-in provider behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.served import ADAPTER, Served
from tests.support.processes import Processes, Simulator
from tests.workers.conftest import ENV, Several

PROVIDER_KEY = "sk-provider"
MODEL = "generic"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Processes(tmp_path_factory.mktemp("box")) as processes:
        box = processes.box(name="a", adapters=[ADAPTER, "globex_v3"], tokens=8)
        box.wait_ready()
        yield box


@pytest.fixture(scope="module")
def shared_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Processes(tmp_path_factory.mktemp("provider")) as processes:
        provider = processes.provider(api_key=PROVIDER_KEY, model=[MODEL], tokens=8)
        provider.wait_ready()
        yield provider


@pytest.fixture
def provider(shared_provider: Simulator) -> Simulator:
    """Healthy, and with no record of earlier tests."""
    shared_provider.admin.heal()
    shared_provider.admin.forget()
    return shared_provider


class Street:
    """Gateways that serve ``acme`` and ``globex`` from one box, with a provider to fall back on."""

    def __init__(self, processes: Processes, folder: Path, box: Simulator, provider: Simulator) -> None:
        self._processes = processes
        self._folder = folder
        self._box = box
        self._provider = provider

    def policies(self, name: str, fallback: Any = None, **more: Any) -> Served:
        """A folder of policies. ``more``: of both customers."""
        served = Served(self._processes, self._folder / name, self._box.url)
        provider = {"model": f"openai/{MODEL}", "api_base": f"{self._provider.url}/v1", "api_key": "${PROVIDER_KEY}"}
        fleet = {"base_model": "base", "boxes": {"a": {"url": self._box.url}}}
        served.write("fleet.yaml", {"fleets": {"main": fleet}, "providers": {"hosted": provider}})
        fallback = [{"provider": "hosted"}] if fallback is None else fallback
        for customer in ("acme", "globex"):
            served.customer(customer, f"fs-{customer}-key", fallback=fallback, **more)
        return served

    async def gateway(self, served: Served, *options: str) -> Several:
        """One gateway."""
        process, url = await served.up(*options, env={**ENV, "PROVIDER_KEY": PROVIDER_KEY})
        return Several(self._processes, process, url)


@pytest.fixture
def street(processes: Processes, tmp_path: Path, box: Simulator, provider: Simulator) -> Street:
    return Street(processes, tmp_path, box, provider)
