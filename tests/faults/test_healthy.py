"""With nothing broken: what all other tests of this folder compare with."""

from __future__ import annotations

from tests.faults.cast import CROWD
from tests.faults.house import House
from tests.faults.invariants import Weather


async def test_everybody_is_answered_by_their_own_adapter_and_both_boxes_are_used(house: House) -> None:
    history = await house.judge(await house.crowd(times=2), Weather())
    assert {asked.served_by for asked in history.asked} == {"box:box-a", "box:box-b"}
    assert not any(arrival.client_left for arrival in history.arrived)


async def test_a_customer_keeps_to_the_box_that_its_adapter_prefers(house: House) -> None:
    history = await house.judge([*await house.crowd(), *await house.crowd()], Weather())
    for customer in CROWD:
        for adapter in customer.adapters:
            assert len({asked.served_by for asked in history.of(customer) if asked.adapter == adapter}) == 1


async def test_nothing_that_identifies_a_client_travels_upstream(house: House) -> None:
    secret = "a-secret-of-the-clients"
    headers = {
        "cookie": secret,
        "x-api-key": secret,
        "openai-organization": secret,
        "x-vllm-priority": secret,
        "x-forwarded-for": secret,
        "x-request-id": secret,
    }
    healthy = await house.crowd(headers=headers)
    with house.broken(("box-a", "box-b"), {"fault": "refuse"}):
        degraded = await house.crowd(headers=headers)
    history = await house.history([*healthy, *degraded])
    assert {arrival.target for arrival in history.arrived} == {"box-a", "box-b", "hosted"}
    assert not [arrival for arrival in history.arrived if secret in arrival.text]
    assert {one.recording.headers["x-request-id"] for one in history.asked} == {secret}
