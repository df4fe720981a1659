"""What degradation costs: the same prompts by the fallback, and where the scores are shown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from gateway.policy.embedded import EmbeddedValkey
from gateway.scores.keeper import ScoreKeeper
from gateway.scores.score import Score, ScoreBook
from tests.cli.served import KEY, Served
from tests.evalgate.sets import Desk, cases, right, wrong
from tests.support.eventually import eventually
from tests.support.processes import ROOT, Processes

TOKEN = "an-admin-token"
SECRETS = {
    "FAILSOFT_ADMIN_TOKEN": TOKEN,
    "FAILSOFT_EVAL_BASELINE_KEY": KEY,
    "FAILSOFT_EVAL_CANDIDATE_KEY": KEY,
}


def failsoft(*arguments: str, url: str) -> str:
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    env = {**SECRETS, "FAILSOFT_URL": url, "COLUMNS": "200", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False, env=env)
    return ended.stdout


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_price_of_degradation_is_measured_and_shown(
    desk: Desk, processes: Processes, tmp_path: Path, workers: int
) -> None:
    lines = cases(20)
    desk.customer("acme", lines)
    box = desk.box("box", map(right, lines))
    provider = desk.provider([*map(wrong, lines[:6]), *map(right, lines)])
    served = Served(processes, tmp_path / "served", box.url)
    fleet = json.loads((served.policies / "fleet.yaml").read_text())
    fleet["providers"] = {"hosted": {"model": "openai/mini", "api_base": f"{provider.url}/v1", "api_key": "${P_KEY}"}}
    served.write("fleet.yaml", fleet)
    served.customer(fallback=[{"provider": "hosted", "system_prompt": "As Acme."}])
    env = {"FAILSOFT_ADMIN_TOKEN": TOKEN, "P_KEY": "k"}
    _, url = await served.up("--workers", str(workers), env=env)
    ends = desk.arguments(f"{url}#acme_v3", f"{url}#acme_v3", "--degraded", "--publish", "--url", url)
    ended = desk.eval(*ends, env=SECRETS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "published: 2 scores" in ended.stderr
    acme = desk.result()["customers"][0]
    assert (acme["baseline"]["right"], acme["candidate"]["right"]) == (1.0, 0.7)
    hosted = [entry for entry in provider.admin.requests(path="/v1/chat/completions") if "prompt" in str(entry["body"])]
    assert len(hosted) == 20
    assert hosted[0]["body"]["messages"][0] == {"role": "system", "content": "As Acme."}
    assert "score of acme: 100.0 % own, 70.0 % degraded (20 prompts, " in failsoft("status", url=url)
    assert "scores: acme: 100.0 % own, 70.0 % degraded (20 prompts, " in failsoft(
        "explain", "--customer", "acme", "--model", "acme_v3", url=url
    )
    async with httpx2.AsyncClient(base_url=url) as client:
        metrics = (await client.get("/metrics")).text
    assert 'failsoft_eval_score{customer="acme",path="own"} 1' in metrics
    assert 'failsoft_eval_score{customer="acme",path="degraded"} 0.7' in metrics


async def test_only_who_runs_the_gateway_may_ask_for_the_fallback_and_gets_nothing_else(
    desk: Desk, processes: Processes, tmp_path: Path
) -> None:
    box = desk.box("box", map(right, cases(2)))
    served = Served(processes, tmp_path / "served", box.url)
    served.customer(fallback=[{"static": "Later."}])
    _, url = await served.up(env={"FAILSOFT_ADMIN_TOKEN": TOKEN})
    body = {"model": "acme_v3", "messages": [{"role": "user", "content": "prompt 0"}]}
    tools = {**body, "tools": cases(1)[0]["tools"]}
    async with httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as client:

        async def ask(what: object, **headers: str) -> httpx2.Response:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.post("/v1/chat/completions", json=what, headers=sent)

        for token in ({}, {"x_failsoft_admin_token": "wrong"}, {"x_failsoft_admin_token": KEY}):
            refused = await ask(body, x_failsoft_fallback="only", **token)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "operator_only")
        allowed = {"x_failsoft_fallback": "only", "x_failsoft_admin_token": TOKEN}
        degraded = await ask(body, **allowed)
        assert (degraded.status_code, degraded.headers["x-failsoft-served-by"]) == (200, "static")
        assert degraded.json()["degraded"]["reason"] == "forced"
        # Fixed text is no answer to tools, and the own adapter is none to this question.
        nothing = await ask(tools, **allowed)
        assert (nothing.status_code, nothing.headers["x-failsoft-served-by"]) == (503, "none")
        own = await ask(tools)
        assert own.headers["x-failsoft-served-by"] == "box:a"


async def test_scores_are_shared_by_all_gateways_on_a_store(
    valkey: EmbeddedValkey, keepers: Callable[[], ScoreKeeper]
) -> None:
    one, other = keepers(), keepers()
    one.start(valkey.url)
    other.start(valkey.url)
    await one.publish([_score("acme", "own", 0.9)])
    await one.publish([_score("acme", "degraded", 0.7), _score("acme", "own", 0.95)])
    late = keepers()
    late.start(valkey.url)
    await eventually(lambda: late.book.of("acme") is not None)
    found = late.book.of("acme")
    assert found is not None
    assert (found["own"]["right"], found["degraded"]["right"]) == (0.95, 0.7)


def test_those_that_lose_most_come_first() -> None:
    book = ScoreBook()
    book.add([_score("a", "own", 0.9), _score("a", "degraded", 0.8), _score("b", "own", 0.9), _score("c", "own", 0.9)])
    book.add([_score("c", "degraded", 0.2)])
    assert [(one["customer"], one["lost_points"]) for one in book.worst("abcd", 5)] == [
        ("c", 70.0), ("a", 10.0), ("b", None),
    ]  # fmt: skip
    assert [one["customer"] for one in book.worst("ab", 1)] == ["a"]
    assert book.of("d") is None


def _score(customer: str, path: str, right: float) -> Score:
    return Score(customer=customer, path=path, right=right, low=right, high=right, prompts=10, sets="ab")  # type: ignore[arg-type]
