"""The ops page: one file, nothing from elsewhere, and a policy that lets only its own script run."""

from __future__ import annotations

import base64
import hashlib
import re

from gateway.control.ops_page import OpsPage
from gateway.observe.actor import Actor
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.standing import Replica, Standing
from gateway.policy.versions import Head
from tests.control.conftest import House


async def test_the_page_needs_no_token_and_holds_no_state(house: House) -> None:
    async with house.client(token=None) as client:
        answer = await client.get("/ops")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == OpsPage.load().html


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = OpsPage.load().html.decode()
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", html) == []
    assert "://" not in html
    assert "@import" not in html
    assert "innerHTML" not in html


def test_only_the_pages_own_script_and_style_may_run() -> None:
    page = OpsPage.load()
    rules = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == "'none'"
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.html.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    html = page.html.decode()
    assert not re.search(r"\son\w+=", html), "handlers in attributes would not run"
    assert not re.search(r"\sstyle=", html), "styles in attributes would not apply"


async def test_what_the_page_shows_of_a_box_is_what_the_admin_api_says(house: House, policy: CompiledPolicy) -> None:
    house.take(policy)
    house.gateways = (Replica("2", 40.0, Standing(name="gw-2:8080", pid=1, in_force=Head("s", 4, "d"))),)
    async with house.client() as client:
        status = (await client.get("/admin/status")).json()
    box, (fleet,) = status["boxes"][0], status["fleets"]
    shown = set(re.findall(r"\bbox\.(\w+)", OpsPage.load().html.decode()))
    assert shown >= {"in_flight", "concurrency_limit", "waiting", "ttft_estimate_s", "drained", "failing_adapters"}
    assert shown <= set(box)
    html = OpsPage.load().html.decode()
    assert set(re.findall(r"\bgateway\.(\w+)", html)) == set(status["replicas"]["silent"][0])
    (inhabitant,) = [one for other in status["boxes"] for one in other["home_of"] if one["adapter"] == "acme_v3"]
    assert {"adapter", "requests_per_s"} <= set(re.findall(r"\bone\.(\w+)", html)) <= set(inhabitant)
    assert {"placed_by", "predicted_swaps_per_s"} <= set(re.findall(r"\bfleet\.(\w+)", html)) <= set(fleet)


async def test_orders_and_proofs_are_shown_as_the_admin_api_has_them(house: House, policy: CompiledPolicy) -> None:
    house.take(policy)
    await house.orders.degrade("acme", 60, reason="why", actor=Actor("ops", "ann"))
    async with house.client() as client:
        status = (await client.get("/admin/status")).json()
    html = OpsPage.load().html.decode()
    (order,), step = status["orders"], status["drills"]["steps"][0]
    assert {"customer", "left_s", "until", "by", "reason"} <= set(re.findall(r"\border\.(\w+)", html)) <= set(order)
    assert {"step", "customers", "oldest_age_s", "last_error"} <= set(re.findall(r"\bstep\.(\w+)", html)) <= set(step)
    assert {"failed", "stale", "unproven", "proven"} <= set(step)


def test_every_control_has_a_label() -> None:
    html = OpsPage.load().html.decode()
    assert re.search(r"<label>[^<]+<input", html)
    assert 'lang="en"' in html
    assert html.count('role="alert"') == 2
