"""`/admin/scores`: how good customers' answers are, own and degraded, as evals found."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.compiled import CompiledPolicy
from gateway.policy.embedded import EmbeddedValkey
from tests.control.conftest import House

OWN = {"customer": "acme", "path": "own", "right": 0.985, "low": 0.96, "high": 0.99, "prompts": 200, "sets": "ab12"}
DEGRADED = {**OWN, "path": "degraded", "right": 0.71}


async def test_what_is_published_is_in_status_explain_and_metrics(
    house: House, policy: CompiledPolicy, valkey: EmbeddedValkey
) -> None:
    house.take(policy)
    house.scores.start(valkey.url)
    async with house.client() as client:
        assert (await client.post("/admin/scores", json={"scores": [OWN, DEGRADED]})).json() == {"taken": 2}
        (row,) = (await client.get("/admin/scores")).json()["scores"]
        (shown,) = (await client.get("/admin/status")).json()["scores"]
        explained = (await client.get("/admin/explain", params={"customer": "acme", "model": "acme_v3"})).json()
        metrics = (await client.get("/metrics")).text
    await house.scores.close()
    assert row == shown
    assert (row["own"]["right"], row["degraded"]["right"], row["lost_points"]) == (0.985, 0.71, 27.5)
    assert row["own"]["at"] > 0
    assert explained["scores"] == {"own": row["own"], "degraded": row["degraded"]}
    assert 'failsoft_eval_score{customer="acme",path="degraded"} 0.71' in metrics
    assert [entry.what for entry in house.audit.changes] == ["POST /admin/scores"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"scores": [{**OWN, "customer": "acne"}]}, 404, "customer_not_found"),
        ({"scores": []}, 400, None),
        ({"scores": [{**OWN, "right": 1.5}]}, 400, None),
        ({"scores": [{**OWN, "path": "other"}]}, 400, None),
        ({"scores": [OWN]}, 503, None),
    ],
)
async def test_what_cannot_be_taken_is_refused_whole(
    house: House, policy: CompiledPolicy, body: Any, status: int, code: str | None
) -> None:
    house.take(policy)
    async with house.client() as client:
        answer = await client.post("/admin/scores", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert (await client.get("/admin/scores")).json() == {"scores": []}
        explained = (await client.get("/admin/explain", params={"customer": "acme", "model": "acme_v3"})).json()
    assert explained["scores"] is None


async def test_a_customer_that_is_gone_is_shown_no_more(
    house: House, policy: CompiledPolicy, valkey: EmbeddedValkey
) -> None:
    house.take(policy)
    house.scores.start(valkey.url)
    async with house.client() as client:
        await client.post("/admin/scores", json={"scores": [OWN]})
        house.current = None
        metrics = (await client.get("/metrics")).text
    await house.scores.close()
    assert "failsoft_eval_score{" not in metrics
