"""The admin API: behind its token, and never a key in what it says."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import ConnectError, UpstreamStatus
from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.estimate import STALE_S
from gateway.policy.compiled import CompiledPolicy
from tests.control.conftest import TOKEN, House

PATHS = ("/admin/status", "/admin/customers", "/admin/events")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xfc"]
)
async def test_without_the_token_nothing_is_told(house: House, path: str, header: str | None) -> None:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    async with house.client(token=None) as client:
        answer = await client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("token", [None, ""])
@pytest.mark.parametrize("sent", [None, "", TOKEN])
async def test_a_gateway_without_a_token_has_no_admin_api_and_says_how_to_get_it(
    house: House, token: str | None, sent: str | None
) -> None:
    house.admin_token = token
    async with house.client(token=sent) as client:
        answer = await client.get("/admin/status")
    assert answer.status_code == 403
    assert "FAILSOFT_ADMIN_TOKEN" in answer.json()["error"]["message"]


async def test_status_before_the_first_policy_is_empty_but_whole(house: House) -> None:
    async with house.client() as client:
        status = (await client.get("/admin/status")).json()
    assert (status["policy"], status["boxes"], status["alarms"], status["ready"]) == (None, [], [], False)
    assert status["requests"]["answered"] == 0


async def test_status_shows_policy_boxes_alarms_and_what_was_answered(house: House, policy: CompiledPolicy) -> None:
    house.take(policy)
    first, second = house.fleets.all()
    running = first.admit("acme_v3", house.now)
    for error, adapter in ((UpstreamStatus(404), "acme_v4"), (ConnectError("refused"), None)):
        permit = second.admit(adapter, house.now)
        assert permit is not None
        permit.failed(error, house.now)
    asked = house.hosted.of(policy.providers["hosted"]).admit(house.now, streamed=True)
    assert asked is not None
    asked.failed(UpstreamStatus(401), house.now)
    house.metrics.requests.inc("acme", "box", "none", by=6)
    house.metrics.requests.inc("acme", "provider", "backend_down", by=3)
    house.metrics.requests.inc("acme", "none", "backend_down", by=1)
    house.now += 0.25
    async with house.client() as client:
        answer = await client.get("/admin/status")
    assert answer.headers["cache-control"] == "no-store"
    status = answer.json()
    assert status["uptime_s"] == 0.2
    assert (status["policy"]["version"], status["policy"]["source"]) == (1, "folder")
    assert status["policy"]["warnings"] == ["acme: a warning"]
    a, b = status["boxes"]
    assert (a["name"], a["state"], a["in_flight"], a["last_probe"]) == ("a", "closed", 1, None)
    assert (b["state"], b["retry_in_s"], b["last_error"]) == ("open", 0.75, "refused")
    assert b["missing_adapters"] == [{"adapter": "acme_v4", "retry_in_s": 0.75}]
    assert [(alarm["kind"], alarm["subject"]) for alarm in status["alarms"]] == [("adapter_missing", "b/acme_v4")]
    assert status["requests"] == {
        "answered": 9,
        "errors": 1,
        "degraded": 3,
        "by_served_by": {"box": 6, "provider": 3},
        "degraded_by_reason": {"backend_down": 3},
    }
    assert status["providers"] == [
        {
            "name": "hosted",
            "model": "openai/gpt-4o-mini",
            "api_base": None,
            "state": "open",
            "unavailable": None,
            "retry_in_s": 0.75,
            "last_error": "status 401",
        }
    ]
    assert running is not None
    running.released()


async def test_status_shows_how_busy_a_box_is_and_what_it_said_too_long_ago_not_at_all(
    house: House, policy: CompiledPolicy
) -> None:
    house.take(policy)
    a, _ = house.fleets.all()
    with_slot = a.admit("acme_v3", house.now, streamed=True)
    assert with_slot is not None
    house.now += 0.5
    with_slot.succeeded(house.now)
    a.load.read(EngineReading(house.now, waiting_capacity=0.0, waiting_deferred=2.0))
    async with house.client() as client:
        busy, idle = (await client.get("/admin/status")).json()["boxes"]
        house.now += STALE_S + 0.1
        stale = (await client.get("/admin/boxes/a")).json()
    assert (busy["concurrency_limit"], busy["ttft_estimate_s"]) == (256, 0.5)
    assert busy["waiting"] == {"capacity": 0.0, "deferred": 2.0}
    assert busy["slots"] == {"of": 8, "max_loras": 8, "held": ["acme_v3"]}
    assert (idle["ttft_estimate_s"], idle["waiting"]) == (None, {"capacity": None, "deferred": None})
    assert stale["waiting"] == {"capacity": None, "deferred": None}
    with_slot.released()


async def test_customers_are_shown_with_their_fallback(house: House, policy: CompiledPolicy) -> None:
    house.take(policy)
    async with house.client() as client:
        (acme,) = (await client.get("/admin/customers")).json()["customers"]
    assert (acme["name"], acme["adapters"]) == ("acme", ["acme_v3", "acme_v4"])
    assert acme["fallback"] == [
        {"provider": "hosted", "model": "openai/gpt-4o-mini", "system_prompt": True, "drop": []},
        {"base": {}},
        {"static": "Later.", "even_for_tools": False},
    ]
    assert acme["api_keys"] == [{"name": "ci", "expires": "2027-01-01"}]


async def test_customers_before_the_first_policy_are_none(house: House) -> None:
    async with house.client() as client:
        assert (await client.get("/admin/customers")).json() == {"policy_version": None, "customers": []}


async def test_no_key_or_digest_is_ever_shown(house: House, policy: CompiledPolicy) -> None:
    house.take(policy)
    async with house.client() as client:
        said = "".join([(await client.get(path)).text for path in (*PATHS, "/readyz", "/metrics", "/ops")])
    for secret in ("box-secret", "provider-secret", "9f9f", TOKEN):
        assert secret not in said
    assert TOKEN not in repr(house.sources())


async def test_events_are_read_after_the_last_one_seen(house: House) -> None:
    for n in range(3):
        house.events.add("tick", n=n)
    async with house.client() as client:
        answer = (await client.get("/admin/events", params={"after": 1})).json()
    assert answer["newest"] == 3
    assert [(event["sequence"], event["kind"], event["fields"]) for event in answer["events"]] == [
        (2, "tick", {"n": 1}),
        (3, "tick", {"n": 2}),
    ]


async def test_a_long_poll_is_answered_by_the_next_event(house: House) -> None:
    async with house.client() as client:
        polling = asyncio.get_running_loop().create_task(client.get("/admin/events", params={"wait_s": 30}))
        while not house.events._waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        house.events.add("tick")
        answer = (await polling).json()
    assert [event["kind"] for event in answer["events"]] == ["tick"]


async def test_a_long_poll_without_events_ends_empty(house: House) -> None:
    async with house.client() as client:
        answer = (await client.get("/admin/events", params={"wait_s": 0.01})).json()
    assert answer == {"newest": 0, "events": []}


@pytest.mark.parametrize("query", ["after=-1", "after=x", "wait_s=31", "wait_s=-1", "wait_s=nan"])
async def test_a_query_that_makes_no_sense_is_refused_with_the_name_of_what_is_wrong(house: House, query: str) -> None:
    async with house.client() as client:
        answer = await client.get(f"/admin/events?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]


async def test_a_defect_is_a_500_in_the_envelope(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.documents.status", lambda sources: 1 / 0)
    async with house.client() as client:
        answer = await client.get("/admin/status")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
