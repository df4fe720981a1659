"""Health: up, and ready for clients."""

from __future__ import annotations

import pytest

from gateway.clock import wall_s
from gateway.fleet.probe_result import ProbeResult
from gateway.policy.compiled import CompiledPolicy
from tests.control.conftest import House


async def test_a_process_that_is_up_is_healthy_without_a_policy_or_a_token(house: House) -> None:
    async with house.client(token=None) as client:
        assert (await client.get("/healthz")).json() == {"ok": True}
        assert (await client.head("/healthz")).status_code == 200


async def test_it_is_not_ready_without_a_policy_however_long_it_runs(house: House) -> None:
    async with house.client(token=None) as client:
        house.now += 1000
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["waiting_for"] == ["a policy version"]


async def test_it_is_ready_once_every_box_was_probed_whatever_came_of_it(house: House, policy: CompiledPolicy) -> None:
    house.take(policy)
    async with house.client(token=None) as client:
        for box in house.fleets.all():
            answer = await client.get("/readyz")
            assert answer.status_code == 503
            assert f"the first probe of box {box.name}" in answer.json()["waiting_for"]
            box.last_probe = ProbeResult(wall_s(), "refused", 0.001, "no connection")
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["waiting_for"] == []
    assert answer.json()["policy_version"] == 1


async def test_a_box_that_does_not_answer_its_probe_delays_readiness_by_three_seconds_at_most(
    house: House, policy: CompiledPolicy
) -> None:
    house.take(policy)
    async with house.client(token=None) as client:
        house.now += 2.9
        assert (await client.get("/readyz")).status_code == 503
        house.now += 0.1
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["unprobed_boxes"] == ["a", "b"]


@pytest.mark.parametrize(("source", "from_snapshot"), [("folder", False), ("store", False), ("snapshot", True)])
async def test_it_says_whether_the_policies_come_from_a_snapshot(
    house: House, policy: CompiledPolicy, source: str, from_snapshot: bool
) -> None:
    house.take(policy)
    house.source = source
    house.now += 3
    async with house.client(token=None) as client:
        answer = (await client.get("/readyz")).json()
    assert (answer["policy_source"], answer["policy_from_snapshot"]) == (source, from_snapshot)


async def test_metrics_need_no_token(house: House) -> None:
    house.metrics.requests.inc("acme", "box", "none")
    async with house.client(token=None) as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'failsoft_requests_total{customer="acme"' in answer.text


async def test_the_control_plane_can_be_split_over_two_listeners(house: House) -> None:
    paths = ("/healthz", "/metrics", "/ops", "/admin/status")
    async with house.client(admin=False) as public, house.client(public=False) as admin:
        assert [(await public.get(path)).status_code for path in paths] == [200, 404, 404, 404]
        assert [(await admin.get(path)).status_code for path in paths] == [404, 200, 200, 200]


async def test_what_is_not_served_is_an_error_in_the_envelope_of_openai(house: House) -> None:
    async with house.client() as client:
        missing, wrong = await client.get("/nothing"), await client.post("/healthz")
    assert missing.status_code == 404
    assert missing.json()["error"] == {
        "message": "GET /nothing is not served here.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert wrong.status_code == 405
    assert wrong.headers["allow"]
    assert "POST" in wrong.json()["error"]["message"]
