"""Admin tokens of the policies: what each may do, from when until when, and what is written down of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
from dataclasses import replace
from typing import Any, Literal

import pytest

from gateway.clock import today_utc
from gateway.errors import StoreUnreachable
from gateway.policy.compiled import AdminToken, CompiledPolicy
from tests.control.conftest import TOKEN, House

READER, WRITER = "fsa_reader", "fsa_writer"
DRAIN = "/admin/boxes/a/drain"


def token(name: str, secret: str, scope: Literal["read", "write"], expires: dt.date | None = None) -> AdminToken:
    return AdminToken(name, hashlib.sha256(secret.encode()).digest(), scope, expires)


def with_tokens(policy: CompiledPolicy, *tokens: AdminToken) -> CompiledPolicy:
    return replace(policy, admin_tokens={token.digest: token for token in tokens})


@pytest.fixture
def house_with_tokens(house: House, policy: CompiledPolicy) -> House:
    house.take(with_tokens(policy, token("dashboards", READER, "read"), token("robot", WRITER, "write")))
    return house


async def ask(house: House, method: str, path: str, secret: str | None, **more: Any) -> tuple[int, dict[str, Any]]:
    async with house.client(token=secret) as client:
        answer = await client.request(method, path, **more)
    return answer.status_code, answer.json()


@pytest.mark.parametrize(("secret", "drains"), [(READER, 403), (WRITER, 200), (TOKEN, 200), ("fsa_other", 401)])
async def test_what_reads_needs_read_and_what_changes_something_needs_write(
    house_with_tokens: House, secret: str, drains: int
) -> None:
    reads = 401 if drains == 401 else 200
    for path in ("/admin/status", "/admin/customers", "/admin/events", "/admin/audit", "/admin/boxes/a"):
        assert (await ask(house_with_tokens, "GET", path, secret))[0] == reads
    status, answer = await ask(house_with_tokens, "POST", DRAIN, secret)
    assert status == drains
    if drains == 403:
        assert answer["error"]["type"] == "permission_error"
        assert "scope: write" in answer["error"]["message"]
    (box, _) = house_with_tokens.fleets.all()
    assert box.duty.drained == (drains == 200)


async def test_the_tokens_of_the_policy_work_without_one_of_the_environment(house_with_tokens: House) -> None:
    house_with_tokens.admin_token = None
    assert (await ask(house_with_tokens, "GET", "/admin/status", READER))[0] == 200
    assert (await ask(house_with_tokens, "GET", "/admin/status", ""))[0] == 401
    assert (await ask(house_with_tokens, "GET", "/admin/status", TOKEN))[0] == 401


@pytest.mark.parametrize(("days", "status"), [(-1, 401), (0, 200), (1, 200)])
async def test_a_token_is_valid_until_the_end_of_its_last_day(
    house: House, policy: CompiledPolicy, days: int, status: int
) -> None:
    last = today_utc() + dt.timedelta(days=days)
    house.take(with_tokens(policy, token("dashboards", READER, "read", last)))
    assert (await ask(house, "GET", "/admin/status", READER))[0] == status


async def test_a_token_is_revoked_as_soon_as_a_policy_without_it_is_in_force(
    house_with_tokens: House, policy: CompiledPolicy
) -> None:
    waiting = asyncio.ensure_future(  # noqa: TID251  # the test awaits it
        ask(house_with_tokens, "GET", f"/admin/events?wait_s=20&after={house_with_tokens.events.newest}", READER)
    )
    await asyncio.sleep(0.05)
    house_with_tokens.take(with_tokens(policy, token("robot", WRITER, "write")))
    assert (await ask(house_with_tokens, "GET", "/admin/status", READER))[0] == 401
    # Nor is a poll that had begun before told anything.
    house_with_tokens.events.add("something")
    status, answer = await waiting
    assert (status, "something" in str(answer)) == (401, False)


async def test_what_is_not_served_under_admin_is_told_to_those_with_a_token_only(house_with_tokens: House) -> None:
    assert (await ask(house_with_tokens, "GET", "/admin/nothing", None))[0] == 401
    assert (await ask(house_with_tokens, "GET", "/admin/nothing", READER))[0] == 404
    assert (await ask(house_with_tokens, "DELETE", "/admin/status", READER))[0] == 403
    assert (await ask(house_with_tokens, "DELETE", "/admin/status", WRITER))[0] == 405


async def test_each_change_is_written_down_with_who_what_and_its_outcome_and_no_read_is(
    house_with_tokens: House,
) -> None:
    await ask(house_with_tokens, "GET", "/admin/status", WRITER)
    await ask(house_with_tokens, "POST", f"{DRAIN}?why=kernel", WRITER, json={"for": "10m"})
    await ask(house_with_tokens, "POST", "/admin/boxes/a%0Ab/drain", TOKEN)
    first, second = house_with_tokens.audit.changes
    assert (first.who, first.what, first.outcome, first.where) == ("robot", f"POST {DRAIN}", "200", "127.0.0.1")
    assert json.loads(first.parameters) == {"why": "kernel"}  # the route reads no body, so none was sent on to it
    assert (second.who, second.what, second.outcome) == ("env", "POST /admin/boxes/a%0Ab/drain", "404")
    assert house_with_tokens.audit.refusals == []


async def test_each_refusal_is_written_down_and_never_the_token_that_was_tried(house_with_tokens: House) -> None:
    await ask(house_with_tokens, "POST", DRAIN, READER)
    await ask(house_with_tokens, "GET", "/admin/status", "fsa_guess")
    reader, stranger = house_with_tokens.audit.refusals
    assert (reader.who, reader.what, reader.outcome) == ("dashboards", f"POST {DRAIN}", "403")
    assert (stranger.who, stranger.what, stranger.outcome) == ("", "GET /admin/status", "401")
    assert "fsa_guess" not in str(house_with_tokens.audit.refusals)
    assert house_with_tokens.audit.changes == []


async def test_the_audit_log_is_shown_and_what_is_missing_of_it(house_with_tokens: House) -> None:
    await ask(house_with_tokens, "POST", DRAIN, WRITER)
    _, whole = await ask(house_with_tokens, "GET", "/admin/audit", READER)
    assert (whole["complete"], [entry["who"] for entry in whole["entries"]]) == (True, ["robot"])
    house_with_tokens.audit.away = StoreUnreachable("the store does not answer")
    _, part = await ask(house_with_tokens, "GET", "/admin/audit?since=1&limit=5", READER)
    assert (part["complete"], part["missing"]) == (False, "the store does not answer")
    assert len(part["entries"]) == 1
    assert (await ask(house_with_tokens, "GET", "/admin/audit?limit=0", READER))[0] == 400
