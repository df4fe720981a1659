"""Houses that all tests of this folder share: each test gets a calm one, and leaves it as it likes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

from tests.faults.house import House
from tests.support.processes import Processes

HOUSES = 4
"""While a test runs in one or two of them, what it takes to calm the others goes on."""


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Whom the gateways trust, beside nobody else."""
    return trustme.CA()


@pytest.fixture(scope="session")
def houses(
    session_processes: Processes, tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[Iterator[House]]:
    """All of them in turn, for ever. They are started once: whatever heals, heals by itself."""
    trusted = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    built = [House(session_processes, tmp_path_factory.mktemp("house")) for _ in range(HOUSES)]
    for house in built:
        # OpenSSL's own variable for the authorities to trust: the gateway has no switch to trust more.
        house.open({"SSL_CERT_FILE": str(trusted)})
    for house in built:
        house.gateway.wait_ready()
    yield itertools.cycle(built)
    for house in built:
        house.close()


@pytest.fixture
async def house(houses: Iterator[House]) -> AsyncIterator[House]:
    """Healthy, with every breaker closed and no record of earlier tests."""
    house = next(houses)
    await house.calm()
    yield house
    house.heal()
    house.gateway.expect_no_defect()


@pytest.fixture
async def two_houses(houses: Iterator[House]) -> AsyncIterator[tuple[House, House]]:
    """Two such houses, for a test that does two things at the same time."""
    pair = next(houses), next(houses)
    await asyncio.gather(*(house.calm() for house in pair))
    yield pair
    for house in pair:
        house.heal()
    for house in pair:
        house.gateway.expect_no_defect()


@pytest.fixture
def certificates(tmp_path: Path, authority: trustme.CA) -> Path:
    """A file with the certificate and the key of a box on this machine."""
    path = tmp_path / "box.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path
