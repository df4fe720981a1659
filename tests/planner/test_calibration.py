"""`failsoft plan --calibrate`: the engine's costs from what a load test saw."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from backend.planner.least_squares import fit
from backend.planner.run import run
from backend.planner.scenario import Option, Scenario
from backend.planner.terms import made_up
from backend.simulator.engine_knobs import ModelKnobs
from backend.traffic.mix import TrafficMix
from backend.traffic.schedule import schedule
from gateway.cli.plan import plan as command

ROOT = Path(__file__).parent.parent.parent
QUICK = ("--boxes", "1", "--duration", "5s", "--warm-up", "2s", "--jobs", "1", "--goal", "errors < 100%")
TRUTH = ModelKnobs(
    decode_ms=5.0, decode_ms_per_seq=0.4, decode_ms_per_adapter=0.03, prefill_tokens_per_s=8000.0, swap_ms=25.0
)


def refused(*arguments: str) -> str:
    """What is said of it; in this process, as nothing is simulated."""
    app = typer.Typer()
    app.command()(command)
    found = CliRunner().invoke(app, [*QUICK, *arguments])
    assert found.exit_code == 2, found.output
    return " ".join(found.output.split())


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", "plan", *QUICK, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=50, check=False, env=os.environ)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What `failsoft load --samples` reports of two simulated boxes whose engine is known, in virtual time."""
    mix = TrafficMix.model_validate(
        {
            "requests_per_minute": 240,
            "adapters": 24,
            "duration": "60s",
            "warm_up": "10s",
            "prompt_tokens": {"uniform": [100, 1500]},
            "output_tokens": {"uniform": [50, 300]},
        }
    )
    arrivals = schedule(mix)
    done = run(Scenario("as it is", arrivals, mix.length_s, mix.warm_up, made_up(arrivals), TRUTH), Option(2, 4))
    samples = {
        "at_s": [one.at_s for one in done.asked],
        "sent_s": [one.at_s for one in done.asked],
        "first_s": [one.at_s + one.ttft_s for one in done.asked],
        "last_s": [one.at_s + one.e2e_s for one in done.asked],
        "served_by": [one.served_by for one in done.asked],
        "model": [one.model for one in arrivals],
        "prompt_tokens": [one.prompt_tokens for one in arrivals],
        "output_tokens": [one.output_tokens for one in arrivals],
    }
    return {"format": 1, "run": {"warm_up_s": mix.warm_up}, "overall": {}, "customers": {}, "samples": samples}


def written(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_the_engine_that_was_measured_is_found_again_saved_and_planned_with(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    engine = tmp_path / "engine.yaml"
    report = written(tmp_path / "load.json", measured)
    found = plan("--calibrate", report, "--save-engine", str(engine), "--kv-cache-tokens", "1000000")
    assert found.returncode == 0, found.stderr
    costs = yaml.safe_load(engine.read_text())
    assert costs["kv_cache_tokens"] == 1_000_000
    assert costs["decode_ms"] == pytest.approx(5.0, rel=0.1)
    # With what another adapter adds, which grows with the batch as well.
    assert 0.36 < costs["decode_ms_per_seq"] < 0.46
    assert costs["prefill_tokens_per_s"] == pytest.approx(8000, rel=0.1)
    assert costs["swap_ms"] == pytest.approx(25, rel=0.25)
    again = plan("--engine", str(engine), "--swap-ms", "99")
    said = " ".join(again.stdout.split())
    assert f"step takes {costs['decode_ms']:g} ms" in said
    assert "99 ms from main memory" in said


def test_a_table_of_the_gpu_bench_tells_what_swaps_cost(tmp_path: Path) -> None:
    sections = {"swap": {"pool": {"p50": 33.0}}, "disk": {"disk": {"p50": 233.0}}}
    table = written(tmp_path / "table.json", {"settings": {"max_loras": 8}, "sections": sections})
    found = plan("--calibrate", table)
    assert found.returncode == 0, found.stderr
    assert "33 ms from main memory into a slot and 200 ms from disk" in " ".join(found.stdout.split())


def test_what_tells_nothing_is_refused_with_what_to_do(measured: dict[str, Any], tmp_path: Path) -> None:
    percentiles = {name: part for name, part in measured.items() if name != "samples"}
    few = {**measured, "samples": {name: some[:80] for name, some in measured["samples"].items()}}
    hosted = ["provider:hosted"] * len(measured["samples"]["model"])
    nobody = {**measured, "samples": {**measured["samples"], "served_by": hosted}}
    for document, words in (
        (percentiles, "with --samples and --out"),
        (few, "100 are the least"),
        (nobody, "with boxes that answer"),
        ({"rows": []}, "neither a report of failsoft load"),
        ({"settings": {}, "sections": {}}, "run python -m bench.gpu again"),
    ):
        assert words in refused("--calibrate", written(tmp_path / "report.json", document))
    (tmp_path / "report.json").write_text("{")
    assert "is not JSON" in refused("--calibrate", str(tmp_path / "report.json"))


def test_a_steady_batch_tells_no_step_from_a_sequence(measured: dict[str, Any], tmp_path: Path) -> None:
    count = 150
    samples = {
        "at_s": [2.0 * n + 20 for n in range(count)],
        "sent_s": [2.0 * n + 20 for n in range(count)],
        "first_s": [2.0 * n + 20.1 for n in range(count)],
        "last_s": [2.0 * n + 21 for n in range(count)],
        "served_by": ["box:a"] * count,
        "model": ["x"] * count,
        "prompt_tokens": [100] * count,
        "output_tokens": [100] * count,
    }
    said = refused("--calibrate", written(tmp_path / "report.json", {**measured, "samples": samples}))
    assert "higher (--rate)" in said


def test_a_file_of_an_engine_is_read_strictly(tmp_path: Path) -> None:
    engine = tmp_path / "engine.yaml"
    for text, words in (
        ("decode_mss: 5", "did you mean decode_ms?"),
        ("decode_ms: fast", "'fast' is not a number"),
        ("- 5", "holds no engine"),
        ("decode_ms: 0", "has to take some time"),
    ):
        engine.write_text(text)
        assert words in refused("--engine", str(engine))


@given(x=st.lists(st.floats(0.1, 10), min_size=2, max_size=4), seed=st.integers(0, 10_000), wild=st.integers(0, 5))
def test_a_few_wild_points_lead_no_regression_astray(x: list[float], seed: int, wild: int) -> None:
    chance = random.Random(seed)
    rows = [[chance.uniform(0.5, 100) for _ in x] for _ in range(60)]
    values = [sum(a * b for a, b in zip(row, x, strict=True)) for row in rows]
    for n in range(wild):
        values[n] *= 10
    found = fit(rows, values)
    assert found == pytest.approx(x, rel=0.2, abs=0.05)
