"""Maintenance: `failsoft drain` and `undrain`, from the command and from the admin API."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.cli.drain import drain
from gateway.cli.status import status
from gateway.cli.undrain import undrain
from gateway.errors import Reason, UpstreamStatus
from gateway.fleet.duty import RAMP_S
from gateway.policy.compiled import CompiledPolicy
from tests.control.conftest import House, run
from tests.fleet.policies import compiled


@pytest.fixture
def house(house: House, policy: CompiledPolicy) -> House:
    house.take(policy)
    house.now += 3
    return house


def kinds(house: House) -> list[tuple[str, object]]:
    return [(event.kind, event.fields["box"]) for event in house.events.since(0)]


async def test_a_drained_box_gets_nothing_new_until_it_is_undrained_into_a_ramp(house: House, url: str) -> None:
    a, b = house.fleets.all()
    result = await run(drain, "a", "--url", url)
    assert result.exit_code == 0, result.output
    assert "a is drained on this gateway" in result.stdout
    assert (a.condition("acme_v3", house.now), a.admit("acme_v3", house.now)) == (Reason.FORCED, None)
    assert b.condition("acme_v3", house.now) is None
    result = await run(undrain, "a", "--url", url)
    assert result.exit_code == 0, result.output
    assert f"full share after {RAMP_S:.0f} s" in result.stdout
    assert a.condition("acme_v3", house.now) is None
    assert a.duty.in_ramp(house.now)
    assert kinds(house) == [("box_drained", "a"), ("box_undrained", "a")]


async def test_what_is_so_already_is_said_and_no_event(house: House, url: str) -> None:
    assert "b was not drained on this gateway" in (await run(undrain, "b", "--url", url)).stdout
    await run(drain, "b", "--url", url)
    result = await run(drain, "b", "--url", url)
    assert (result.exit_code, "was drained already" in result.stdout) == (0, True)
    assert kinds(house) == [("box_drained", "b")]


async def test_json_says_what_changed_and_where_it_holds(house: House, url: str) -> None:
    permit = house.fleets.all()[0].admit("acme_v3", house.now)
    assert permit is not None
    assert json.loads((await run(drain, "a", "--url", url, "--json")).stdout) == {
        "box": "a",
        "drained": True,
        "changed": True,
        "customers_in_flight": 1,
        "scope": "this gateway",
    }
    permit.released()
    undrained = {"box": "a", "drained": False, "changed": True, "scope": "this gateway"}
    assert json.loads((await run(undrain, "a", "--url", url, "--json")).stdout) == undrained


@pytest.mark.parametrize("command", [drain, undrain])
@pytest.mark.parametrize(("name", "hint"), [("aa", "Did you mean a?"), ("../status", "Boxes"), ("ä b?#", "Boxes")])
async def test_an_unknown_box_is_one_and_names_those_there_are(
    house: House, url: str, command: Callable[..., None], name: str, hint: str
) -> None:
    result = await run(command, name, "--url", url)
    assert result.exit_code == 1, result.output
    assert hint in result.stderr
    assert "Boxes of the policy in force: a, b." in result.stderr


async def test_an_unknown_box_is_a_404_in_the_envelope(house: House) -> None:
    async with house.client() as client:
        for answer in (await client.post("/admin/boxes/c/drain"), await client.get("/admin/boxes/c")):
            assert answer.status_code == 404
            assert answer.json()["error"] == {
                "message": "There is no box `c`. Boxes of the policy in force: a, b.",
                "type": "invalid_request_error",
                "param": "box",
                "code": "box_not_found",
            }


async def test_draining_asks_for_the_admin_token(house: House) -> None:
    async with house.client(token="wrong") as client:
        for verb in ("drain", "undrain"):
            assert (await client.post(f"/admin/boxes/a/{verb}")).status_code == 401
    assert not house.fleets.all()[0].duty.drained


async def test_no_gateway_there_is_three() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    for command in (drain, undrain):
        assert (await run(command, "a", "--url", f"http://127.0.0.1:{port}")).exit_code == 3


async def test_waiting_returns_when_the_last_request_has_ended_and_tells_how_many_are_left(
    house: House, url: str
) -> None:
    box = house.fleets.all()[0]
    permits = [box.admit("acme_v3", house.now) for _ in range(2)]
    # The box is probed on while it is drained, which nobody waits for.
    probe = box.admit(None, house.now, probe=True)
    assert probe is not None
    waiting = asyncio.get_running_loop().create_task(run(drain, "a", "--wait", "--timeout", "30s", "--url", url))
    while not box.duty.drained:  # noqa: ASYNC110  # the command runs in a thread
        await asyncio.sleep(0.01)
    for permit in permits:
        assert not waiting.done()
        assert permit is not None
        permit.released()
        await asyncio.sleep(0)
    result = await waiting
    assert result.exit_code == 0, result.output
    assert "waiting for a: 2 requests are still in flight" in result.stderr
    assert "nothing is in flight there" in result.stdout
    probe.released()
    assert (box.in_flight, box.customers_in_flight) == (0, 0)


async def test_waiting_past_its_time_is_one_and_the_box_stays_drained(house: House, url: str) -> None:
    box = house.fleets.all()[0]
    permit = box.admit("acme_v3", house.now)
    assert permit is not None
    result = await run(drain, "a", "--wait", "--timeout", "300ms", "--url", url)
    assert result.exit_code == 1
    assert "after 300ms 1 request is still in flight at a" in result.stderr
    assert box.duty.drained
    permit.released()


async def test_waiting_ends_when_somebody_undrains_the_box(house: House, url: str) -> None:
    box = house.fleets.all()[0]
    permit = box.admit("acme_v3", house.now)
    assert permit is not None
    waiting = asyncio.get_running_loop().create_task(run(drain, "a", "--wait", "--url", url))
    while not box.duty.drained:  # noqa: ASYNC110  # the command runs in a thread
        await asyncio.sleep(0.01)
    box.undrain(house.now)
    result = await waiting
    assert result.exit_code == 1
    assert "put back on duty" in result.stderr
    permit.released()


@pytest.mark.parametrize("arguments", [("--timeout", "1m"), ("--wait", "--timeout", "soon")])
async def test_a_timeout_without_a_wait_or_without_a_unit_is_misuse(arguments: tuple[str, ...]) -> None:
    assert (await run(drain, "a", *arguments)).exit_code == 2


@pytest.mark.parametrize("command", [drain, undrain])
async def test_help_says_that_it_holds_on_one_gateway(command: Callable[..., None]) -> None:
    result = await run(command, "--help")
    assert "on the one gateway that is asked" in " ".join(result.stdout.replace("│", " ").split())


@pytest.mark.parametrize("change", [{"max_loras": 4}, {"url": "http://elsewhere:8000"}, {"api_key": "another"}])
async def test_a_box_stays_drained_under_a_new_policy_version_until_it_leaves(
    house: House, change: dict[str, object]
) -> None:
    old = house.fleets.all()[0]
    permit = old.admit("acme_v3", house.now)
    assert permit is not None
    old.drain()
    specs = [box.spec for box in house.fleets.all()]
    house.take(compiled(replace(specs[0], **change), specs[1]))  # type: ignore[arg-type]
    async with house.client() as client:
        state = (await client.get("/admin/boxes/a")).json()
        # What runs at the box as it was is still to be waited for.
        assert (state["drained"], state["customers_in_flight"]) == (True, 1)
        permit.released()
        assert (await client.get("/admin/boxes/a")).json()["customers_in_flight"] == 0
        house.take(compiled(specs[1]))
        house.take(compiled(*specs))
        assert (await client.get("/admin/boxes/a")).json()["drained"] is False


async def test_what_an_operator_took_off_is_not_asked_even_as_a_last_resort(house: House) -> None:
    box = house.fleets.all()[0]
    permit = box.admit("acme_v3", house.now)
    assert permit is not None
    permit.failed(UpstreamStatus(404), house.now)
    box.drain()
    assert box.condition("acme_v3", house.now) is Reason.FORCED


async def test_status_page_and_metrics_show_it(house: House, url: str) -> None:
    assert (await run(status, "--url", url)).exit_code == 0
    house.fleets.all()[0].drain()
    result = await run(status, "--url", url)
    assert "drained" in result.stdout
    assert result.exit_code == 1, "a box that was forgotten does not serve"
    async with house.client() as client:
        metrics = (await client.get("/metrics")).text
        page = (await client.get("/ops")).text
    assert 'failsoft_box_drained{box="a"} 1' in metrics
    assert 'failsoft_box_drained{box="b"} 0' in metrics
    assert "box.drained" in page
