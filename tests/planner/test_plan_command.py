"""`failsoft plan`: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from backend.planner.plots import Axis, Series, plot

ROOT = Path(__file__).parent.parent.parent
SMALL = ("--requests-per-minute", "240", "--customers", "12", "--duration", "20s", "--warm-up", "5s", "--jobs", "1")
SHORT_ANSWERS = ("--prompt-tokens", "50-100", "--output-tokens", "20-60")


def plan(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", "plan", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=50, check=False, env=env)


def test_it_searches_for_the_smallest_fleet_and_says_what_if(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    asked = ("--what-if", "box-dies@8s", "--goal", "p95 ttft < 1s and degraded < 10%", "--html", str(page))
    found = plan(*SMALL, *SHORT_ANSWERS, *asked)
    assert found.returncode == 0, found.stderr
    assert "as it is: 1 box × 8 slots, 599 USD a month" in found.stdout
    assert "box-dies@8s: 2 boxes × 8 slots, 1,197 USD a month" in found.stdout
    assert "not measured (backend/simulator/costs.py)" in " ".join(found.stdout.split())
    text = page.read_text()
    assert text.count("<svg") == 4, "nothing is degraded as it is, which is a sentence"
    assert "None: nobody was degraded" in text
    assert "a box dies" in text
    line = (
        "as it is: rates as given, the rest built in: 240 requests a minute, 12 customers by Zipf's law (1), prompts "
        "of 50 to 100 tokens, answers of 20 to 60 tokens, all streamed, 5 s of warm-up, 20 s counted"
    )
    assert f"traffic {line}" in " ".join(found.stdout.split())
    assert line in unescape(text)
    assert not re.search(r"<script|<link|src=|@import|url\(", text)


def test_the_same_seed_gives_the_same_plan_in_any_process() -> None:
    asked = (*SMALL, *SHORT_ANSWERS, "--boxes", "1,2", "--slots", "4", "--what-if", "customers=2x", "--json")
    one, two = (plan(*asked, PYTHONHASHSEED=hash_seed) for hash_seed in ("1", "2"))
    assert one.stdout == two.stdout
    options = json.loads(one.stdout)["options"]
    assert [(o["scenario"], o["boxes"]) for o in options] == [
        ("as it is", 1),
        ("as it is", 2),
        ("customers=2x", 1),
        ("customers=2x", 2),
    ]
    other = plan(*asked, "--seed", "2")
    assert other.stdout != one.stdout


def test_what_was_planned_is_said_where_nobody_gave_a_traffic_and_of_each_scenario() -> None:
    found = plan("--duration", "5s", "--warm-up", "0s", "--boxes", "2", "--what-if", "customers=2x", "--json")
    one, twice = (scenario["traffic"] for scenario in json.loads(found.stdout)["scenarios"])
    assert (one["requests_per_minute"], one["zipf"], one["given"]["duration"]) == (600, 1.0, "5s")
    assert one["prompt_tokens"] == {"mean": 256.0, "p50": 256, "p90": 256, "max": 256}
    assert twice["requests_per_minute"] == 1200
    assert one["source"] == "built-in traffic, as neither --traffic nor --trace nor rates were given"


def test_a_mark_at_the_edge_stands_beside_the_legend_and_not_in_it() -> None:
    drawn = plot(Axis("x", least=0), Axis("y"), [Series("s", [(1, 1), (10, 2)], dots=True, marks=["1×8", "2×8"])])
    assert re.search(r'text-anchor="start">1×8', drawn)
    assert re.search(r'text-anchor="end">2×8', drawn)


def test_a_goal_that_nothing_reaches_ends_with_1() -> None:
    found = plan(*SMALL, *SHORT_ANSWERS, "--boxes", "1", "--goal", "p50 ttft < 1ms")
    assert found.returncode == 1
    assert "as it is: no option reaches the goal" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--goal", "fast"), "'fast' is no bound of a goal"),
        (("--what-if", "fire"), "'fire' is no what-if"),
        (("--what-if", "box-dies@9m"), "the traffic is over by then"),
        (("--boxes", "4..1"), "numbers from 1 to"),
        (("--output-tokens", "many"), "a number of tokens"),
        (("--duration", "soon"), "'soon' is not a duration"),
        (("--decode-ms-per-seq", "1", "--kv-cache-tokens", "100", "--boxes", "1"), "the KV cache holds"),
    ],
)
def test_what_cannot_be_meant_is_misuse(arguments: tuple[str, ...], words: str) -> None:
    found = plan(*SMALL, *SHORT_ANSWERS, *arguments)
    assert found.returncode == 2
    assert words in " ".join(found.stderr.replace("│", " ").split())


def test_a_trace_is_planned_with_the_boxes_and_customers_of_the_policies(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    (policies / "customers").mkdir(parents=True)
    (policies / "fleet.yaml").write_text(
        "fleets:\n  main:\n    base_model: base\n    boxes:\n"
        "      gpu-a: {url: 'http://gpu-a:8000', max_loras: 4}\n      gpu-b: {url: 'http://gpu-b:8000', max_loras: 4}\n"
    )
    (policies / "defaults.yaml").write_text("defaults:\n  fallback:\n    - static: Later, please.\n")
    (policies / "customers" / "acme.yaml").write_text(
        f"customer: acme\nadapters: [acme_v3]\napi_keys: ['sha256:{'0' * 64}']\n"
    )
    line = {"customer": "acme", "model": "acme_v3", "prompt_tokens": 50, "output_tokens": 50}
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps({"at": n / 4, **line}) + "\n" for n in range(80)))
    asked = ("--trace", str(trace), "--policies", str(policies), "--jobs", "1", "--json")
    found = plan(*asked)
    assert found.returncode == 0, found.stderr
    (option,) = json.loads(found.stdout)["options"]
    assert (option["boxes"], option["slots"], option["requests"]) == (2, 4, 80)
    trace.write_text(json.dumps({"at": 0.5, **line, "customer": "globex"}) + "\n")
    unknown = plan(*asked)
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "failsoft plan: globex is in the traffic, and not in the policies\n",
    )
    trace.write_text(json.dumps({"at": 0.5, **line, "stream": False}) + "\n")
    plain = plan(*asked)
    assert (plain.returncode, "aim at e2e" in plain.stderr) == (2, True)
    assert plan(*asked, "--goal", "p95 e2e < 9s").returncode == 0
    trace.write_text("{}\n")
    broken = plan(*asked)
    assert broken.returncode == 1
    assert "trace.jsonl:1:1" in broken.stderr
