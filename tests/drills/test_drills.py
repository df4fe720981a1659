"""Every fallback is proven to work before anybody needs it, by one gateway for all."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.served import ADAPTER
from tests.faults.store_process import StoreProcess
from tests.orders.conftest import Street
from tests.support.processes import Simulator
from tests.workers.conftest import Several


async def proofs(gateway: Several) -> dict[str, Any]:
    return {proof["step"]: proof for proof in (await gateway.status())["drills"]["proofs"]}


async def alarms(gateway: Several) -> dict[str, str]:
    return {alarm["kind"]: alarm["message"] for alarm in (await gateway.status())["alarms"]}


async def test_one_gateway_of_two_proves_what_all_customers_share_and_both_know(
    street: Street, redis: StoreProcess, provider: Simulator
) -> None:
    every = {"drills": {"every": "1s"}}
    fallback = [{"provider": "hosted", "system_prompt": "As Acme.", "drop": ["max_tokens"]}, {"base": {}}]
    first = await street.gateway(street.policies("one", fallback, **every), "--redis", redis.url, "--workers", "2")
    second = await street.gateway(street.policies("two", fallback, **every), "--redis", redis.url)

    async def proven() -> bool:
        found = [await proofs(gateway) for gateway in (first, second)]
        return all({proof["state"] for proof in steps.values()} == {"proven"} and len(steps) == 2 for steps in found)

    await first.until(proven, within_s=20)
    asked = provider.admin.requests()
    # It is the very request that acme's degraded ones would become, and says what it is.
    body = asked[0]["body"]
    assert body["messages"][0] == {"role": "system", "content": "As Acme."}
    assert "drill" in body["messages"][1]["content"]
    assert "max_tokens" not in body
    for gateway in (first, second):
        found = await proofs(gateway)
        assert found["provider:hosted"]["customers"] == found["base:main"]["customers"] == ["acme", "globex"]
        assert (
            0 <= await gateway.metric("failsoft_drill_proof_age_seconds", customer="acme", step="provider:hosted") < 9
        )
        # No customer has asked for anything.
        assert (await gateway.status())["requests"]["answered"] == 0
        assert await gateway.metric("failsoft_requests_total") == 0
    drills = [await gateway.metric("failsoft_drills_total", step="provider:hosted") for gateway in (first, second)]
    assert sum(drills) <= len(provider.admin.requests())

    # The provider breaks while nobody needs it.
    provider.admin.fault("status", status=500, message="broken")
    await first.until(lambda: _alarmed(first, "drill_failed"), within_s=20)
    await second.until(lambda: _alarmed(second, "drill_failed"), within_s=20)
    assert "provider:hosted failed, on which acme, globex would fall back" in (await alarms(second))["drill_failed"]
    _, said = await second.failsoft("status")
    assert "1 failed" in " ".join(said.split())
    provider.admin.heal()
    for gateway in (first, second):
        await gateway.until(lambda gateway=gateway: _over(gateway, "drill_failed"), within_s=20)


async def test_a_command_tries_a_customers_fallback_now_and_a_customers_own_answer_is_a_proof_as_well(
    street: Street, provider: Simulator
) -> None:
    never = {"drills": {"every": "never"}}
    gateway = await street.gateway(street.policies("one", **never), "--workers", "2")
    assert {proof["state"] for proof in (await proofs(gateway)).values()} == {"unproven"}
    code, said = await gateway.failsoft("drill", "acme", "--json")
    assert code == 0, said
    (proof,) = json.loads(said)["proofs"]
    assert (proof["step"], proof["state"], proof["last"]["by"]) == ("provider:hosted", "proven", "command")
    assert proof["last"]["first_content_ms"] >= 0
    assert proof["last"]["served_model"] == "generic"

    provider.admin.fault("status", status=401, message="no such key")
    code, said = await gateway.failsoft("drill", "globex", "--provider", "hosted")
    assert code == 1, said
    assert "status 401" in said
    await gateway.until(lambda: _state(gateway, "open", "half_open"))
    provider.admin.heal()
    assert (await gateway.failsoft("degrade", "acme", "--for", "10m"))[0] == 0

    async def proven_by_traffic() -> bool:
        await gateway.client.chat(ADAPTER)
        proof = (await proofs(gateway))["provider:hosted"]
        return bool(proof["state"] == "proven" and proof["last"]["by"] == "traffic")

    await gateway.until(proven_by_traffic, within_s=20)
    await gateway.until(lambda: _over(gateway, "drill_failed"))


async def test_what_drills_take_is_in_the_usage_and_a_spent_cap_holds_them_back(
    street: Street, provider: Simulator
) -> None:
    never = {"drills": {"every": "never"}}
    served = street.policies("one", **never)
    fleet = json.loads((served.policies / "fleet.yaml").read_text())
    fleet["providers"]["hosted"]["price"] = {"input_per_million": 100, "output_per_million": 200}
    served.write("fleet.yaml", fleet)
    served.customer("acme", "fs-acme-key", fallback=[{"provider": "hosted"}], hosted={"usd_per_day": 0.003}, **never)
    gateway = await street.gateway(served, "--workers", "2")
    code, said = await gateway.failsoft("drill", "acme")
    assert code == 0, said

    async def spent() -> bool:
        code, said = await gateway.failsoft("drill", "acme", "--json")
        (proof,) = json.loads(said)["proofs"]
        assert (proof["state"], bool(proof["held_back"])) == ("proven", code == 1)
        return bool(proof["held_back"] == "daily cap spent")

    await gateway.until(spent, within_s=30)
    assert "held back" in (await gateway.failsoft("drill", "acme"))[1]
    (step,) = (await gateway.status())["drills"]["steps"]
    assert (step["held_back"], step["failed"]) == (1, 0)
    asked = len(provider.admin.requests())
    assert asked >= 1
    assert (await gateway.failsoft("drill", "acme"))[0] == 1
    assert len(provider.admin.requests()) == asked
    # Who shares the step has no cap, and pays what it asks for.
    assert (await gateway.failsoft("drill", "globex"))[0] == 0

    code, said = await gateway.failsoft("usage", "--json")
    assert code == 0, said
    rows = {row["customer"]: row for row in json.loads(said)["usage"]}
    assert {(row["served_by"], row["reason"]) for row in rows.values()} == {("provider:hosted", "synthetic_drill")}
    assert (rows["acme"]["requests"], rows["globex"]["requests"]) == (asked, 1)
    assert rows["acme"]["usd"] >= 0.003
    assert "drill_failed" not in await alarms(gateway)


async def test_who_keeps_every_token_at_home_is_never_drilled_at_a_provider(
    street: Street, provider: Simulator
) -> None:
    home = {"hosted": {"allowed": False}, "drills": {"every": "1s", "share": "100%"}}
    gateway = await street.gateway(street.policies("one", [{"provider": "hosted"}, {"base": {}}], **home))

    async def proven() -> bool:
        return {name: proof["state"] for name, proof in (await proofs(gateway)).items()} == {"base:main": "proven"}

    await gateway.until(proven, within_s=20)
    answer = await gateway.client.chat(ADAPTER)
    assert (answer.headers["x-failsoft-served-by"], answer.headers["x-failsoft-degraded"]) == ("base:a", "drill")
    code, said = await gateway.failsoft("drill", "acme", "--provider", "hosted")
    assert code == 1
    assert "hosted.allowed: false" in said
    assert (await gateway.failsoft("drill", "acme"))[0] == 0
    assert provider.admin.requests() == []


async def _alarmed(gateway: Several, kind: str) -> bool:
    return kind in await alarms(gateway)


async def _over(gateway: Several, kind: str) -> bool:
    return kind not in await alarms(gateway)


async def _state(gateway: Several, *states: str) -> bool:
    return (await gateway.status())["providers"][0]["state"] in states
