"""Addresses that lead nowhere, or to somebody else: names without an address, and TLS that does not verify."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import trustme

from tests.faults.cast import EVERYBODY, Customer, write_policies
from tests.faults.house import House
from tests.faults.invariants import Weather
from tests.support.processes import Processes

TLS_HANDSHAKE: Final = 0x16
"""The content type of TLS's first record (RFC 8446, 5.1)."""

CONNECT_TIMEOUT_S: Final = 1.0


def with_a_fleet_of_its_own(name: str) -> Customer:
    return Customer(name, (f"{name}_v1",), fleet=name)


EXPIRED, MISNAMED, HUNG, NAMELESS, SECURE = map(
    with_a_fleet_of_its_own, ("expired", "misnamed", "hung", "nameless", "secure")
)


class Listener:
    """Takes connections and says nothing; of TLS, the handshake may be all that happens."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[bytes] = []
        """What came, decrypted where a handshake succeeded."""
        self.url = ""
        self._tls = tls

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received.append(data)
        except OSError:
            self.received.append(b"")
        finally:
            writer.transport.abort()


def presenting(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


async def test_cases_18_and_19_boxes_without_address_or_with_bad_tls_are_never_talked_to_and_their_customers_answered(
    house: House, processes: Processes, authority: trustme.CA, certificates: Path, tmp_path: Path
) -> None:
    secure = processes.box(name="secure", adapters=SECURE.adapters, certfile=certificates)
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    expired = Listener(presenting(authority.issue_cert("127.0.0.1", not_after=yesterday)))
    misnamed = Listener(presenting(authority.issue_cert("box.example")))
    hung = Listener()
    async with AsyncExitStack() as stack:
        for listener in (expired, misnamed, hung):
            await stack.enter_async_context(listener.listening())
        await secure.ready()
        urls = {
            EXPIRED: expired.url,
            MISNAMED: misnamed.url,
            HUNG: hung.url,
            NAMELESS: "http://box.no-such-name.invalid:8000",
            SECURE: secure.url,
        }
        fleets = {customer.fleet: {f"box-{customer.name}": {"url": url}} for customer, url in urls.items()}
        folder = write_policies(
            tmp_path / "policies",
            {"main": house.box_entries, **fleets},
            house.provider.url,
            customers=(*EVERYBODY, *urls),
        )
        await house.apply(folder)
        try:
            asked = await house.crowd(customers=(EXPIRED, MISNAMED, HUNG, NAMELESS))
            over_tls = await house.crowd(customers=(SECURE,))
            errors = {box["name"]: box["last_error"] for box in house.gateway.status()["boxes"]}
        finally:
            await house.apply(house.policies)

    reasons = frozenset({"backend_down", "circuit_open", "ttft_budget"})
    await house.judge(asked, Weather(all_boxes=frozenset(), reasons=reasons))
    assert {one.served_by for one in asked} == {"provider:hosted"}
    assert all(one.recording.ended_s < CONNECT_TIMEOUT_S + house.slack_s for one in asked)
    assert not any([*expired.received, *misnamed.received]), "something was said over TLS that does not verify"
    assert hung.received, "nobody tried"
    assert {first[0] for first in hung.received if first} == {TLS_HANDSHAKE}, "plaintext was sent where TLS was due"
    assert "expired" in errors["box-expired"]
    assert "no TLS" in errors["box-misnamed"]
    assert "no connection" in errors["box-hung"]
    assert "no address" in errors["box-nameless"]

    await house.judge(over_tls, Weather())
    assert {one.served_by for one in over_tls} == {"box:box-secure"}
    assert len(secure.admin.requests(model="secure_v1")) == len(over_tls)
    secure.clean_up()
