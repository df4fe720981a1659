"""Fixtures of the eval gate's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.scores.keeper import ScoreKeeper
from tests.evalgate.sets import Desk
from tests.support.processes import Processes


@pytest.fixture
def desk(processes: Processes, tmp_path: Path) -> Desk:
    """Sets, endpoints, the command."""
    return Desk(processes, tmp_path)


@pytest.fixture
async def keepers() -> AsyncIterator[Callable[[], ScoreKeeper]]:
    """Makes what follows the scores, and ends it."""
    made: list[ScoreKeeper] = []

    def keeper() -> ScoreKeeper:
        made.append(ScoreKeeper(GatewayMetrics(Registry()), lambda: ["acme"]))
        return made[-1]

    yield keeper
    for one in made:
        await one.close()
