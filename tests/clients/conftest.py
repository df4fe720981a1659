"""One town for all tests of a session, whole again before each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.clients.town import Town
from tests.support.processes import Processes


@pytest.fixture(scope="session")
def built(session_processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """It is started once."""
    town = Town(session_processes, tmp_path_factory.mktemp("town"))
    yield town
    town.gateway.close()


@pytest.fixture
async def town(built: Town) -> AsyncIterator[Town]:
    """Healthy."""
    await built.heal()
    yield built
    built.gateway.expect_no_defect()
