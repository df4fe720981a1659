"""One town for all tests of a session, whole again before each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.clients.town import Town
from tests.support.processes import Processes


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks the same client comes together, in a file: its process takes long to begin."""
    first: dict[tuple[object, ...], int] = {}

    def place(item: pytest.Item) -> int:
        client = (
            item.callspec.params.get("client")
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else None
        )
        group = (item.nodeid,) if client is None else (item.path, client)
        return first.setdefault(group, len(first))

    items.sort(key=place)


@pytest.fixture(scope="session")
def built(session_processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """It is started once."""
    town = Town(session_processes, tmp_path_factory.mktemp("town"))
    yield town
    town.dismiss()
    town.gateway.close()


@pytest.fixture
async def town(built: Town) -> AsyncIterator[Town]:
    """Healthy."""
    await built.heal()
    yield built
    built.gateway.expect_no_defect()
