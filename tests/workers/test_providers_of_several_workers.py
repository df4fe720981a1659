"""Hosted providers of a gateway of several workers: one breaker and one back-off each, over all workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.served import ADAPTER, LATER, Served, digest
from tests.support.processes import Processes, Simulator
from tests.workers.conftest import ENV, Several

CROWD = 16
MODEL = "generic"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Processes(tmp_path_factory.mktemp("provider")) as processes:
        provider = processes.provider(api_key="sk-provider", model=[MODEL])
        provider.wait_ready()
        yield provider


@pytest.fixture
async def gateway(processes: Processes, tmp_path: Path, provider: Simulator) -> Several:
    """Two workers, no box that is up, a provider and then fixed text."""
    provider.admin.heal()
    provider.admin.forget()
    served = Served(processes, tmp_path, "http://127.0.0.1:9")
    served.write(
        "fleet.yaml",
        {
            "fleets": {"main": {"base_model": "base", "boxes": {"a": {"url": "http://127.0.0.1:9"}}}},
            "providers": {
                "hosted": {
                    "model": f"openai/{MODEL}",
                    "api_base": f"{provider.url}/v1",
                    "api_key": "${PROVIDER_KEY}",
                }
            },
        },
    )
    fallback = [{"provider": "hosted"}, {"static": LATER}]
    served.write(
        "customers/acme.yaml",
        {
            "customer": "acme",
            "api_keys": [digest("fs-acme-key")],
            "adapters": [ADAPTER],
            "fallback": fallback,
        },
    )
    process, url = await served.up("--workers", "2", env={**ENV, "PROVIDER_KEY": "sk-provider"})
    return Several(processes, process, url)


async def state(gateway: Several) -> str:
    (provider,) = (await gateway.status())["providers"]
    return str(provider["state"])


async def test_each_worker_resolves_references_and_reaches_the_provider(gateway: Several, provider: Simulator) -> None:
    answers = await gateway.crowd(CROWD)
    assert {answer.headers["x-failsoft-served-by"] for answer in answers} == {"provider:hosted"}
    assert len(provider.admin.requests()) == CROWD
    # Each worker finds out that its customers' answers are degraded; it is told once.
    reasons = [event["reason"] for event in await gateway.events("degraded")]
    assert len(reasons) == len(set(reasons))


async def test_a_provider_that_asked_to_be_left_alone_is_left_alone_by_all_workers(
    gateway: Several, provider: Simulator
) -> None:
    provider.admin.fault("status", status=429, message="slow down", retry_after_s=30)
    assert LATER.encode() in (await gateway.client.chat(ADAPTER)).body
    await gateway.until(lambda: _is(gateway, "backing_off"))
    assert all(LATER.encode() in answer.body for answer in await gateway.crowd(CROWD))
    assert len(provider.admin.requests()) == 1
    assert [event["state"] for event in await gateway.events("provider_state")] == ["backing_off"]


async def test_failures_of_a_provider_are_counted_over_all_workers_and_one_success_heals_it_for_all(
    gateway: Several, provider: Simulator
) -> None:
    provider.admin.fault("status", status=500, message="broken")
    for _ in range(3):
        assert await state(gateway) == "closed"
        await gateway.client.chat(ADAPTER)
    await gateway.until(lambda: _is(gateway, "open", "half_open"))
    assert len(provider.admin.requests()) == 3
    assert await gateway.metric("failsoft_breaker_transitions_total", target="provider:hosted", to="open") == 1

    provider.admin.heal()

    async def healed() -> bool:
        await gateway.crowd(4)
        return await _is(gateway, "closed")

    await gateway.until(healed)
    answers = await gateway.crowd(CROWD)
    assert {answer.headers["x-failsoft-served-by"] for answer in answers} == {"provider:hosted"}


async def test_a_refused_key_is_one_alarm_until_it_is_taken(gateway: Several, provider: Simulator) -> None:
    provider.admin.fault("status", status=401, message="no")
    await gateway.crowd(CROWD)
    alarms = [alarm["kind"] for alarm in (await gateway.status())["alarms"]]
    assert alarms.count("provider_unauthorized") == 1
    provider.admin.heal()

    async def over() -> bool:
        await gateway.crowd(4)
        return "provider_unauthorized" not in [alarm["kind"] for alarm in (await gateway.status())["alarms"]]

    await gateway.until(over, within_s=15)


async def _is(gateway: Several, *states: str) -> bool:
    return await state(gateway) in states
