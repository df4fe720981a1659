"""The eval gate on real adapters: a merged model against multi-LoRA passes, and only the two wrong exports trip it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pytest

from backend.launch import ENGINE_PYTHON, BoxPlan, VllmBox, free_port
from backend.tiny_agents.artefacts import ADAPTER_NAMES, TinyAgents
from backend.tiny_agents.evaluate import MAX_TOKENS, box_plan
from gateway.cli.main import main

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

ROOT: Final = Path(__file__).parents[2]
MERGED, OTHER = ADAPTER_NAMES[0], ADAPTER_NAMES[1]
WRONG: Final = {MERGED: "alpha-halved", OTHER: "rank-in-config"}
"""Which mistake each of two adapters was exported with: a scaling, and a rank."""
PROMPTS: Final = 40
"""Of each set: the mistakes leave nothing right, and two cores serve all of this."""


def exported(adapter: str, form: str, folder: Path) -> Path:
    """One form of an adapter, made in the engine's Python, which has torch."""
    command = [str(ENGINE_PYTHON), "-m", "backend.tiny_agents.exports", "--out", str(folder)]
    subprocess.run([*command, "--adapter", adapter, "--form", form], check=True, timeout=300, cwd=ROOT)
    return folder / adapter / form


@pytest.fixture(scope="module")
def sets(tiny_agents: TinyAgents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginnings of all customers' sets."""
    folder = tmp_path_factory.mktemp("sets")
    for adapter in ADAPTER_NAMES:
        with tiny_agents.eval_set(adapter).open(encoding="utf-8") as lines:
            (folder / f"{adapter}.jsonl").write_text("".join(islice(lines, PROMPTS)), "utf-8")
    return folder


@pytest.fixture(scope="module")
def shared(tiny_agents: TinyAgents, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmBox]:
    """One box with every adapter, and with the wrong exports under names of their own."""
    folder = tmp_path_factory.mktemp("shared")
    plan = box_plan(tiny_agents)
    wrong = {f"{adapter}-wrong": exported(adapter, form, folder / adapter) for adapter, form in WRONG.items()}
    adapters = {**plan.adapters, **wrong}
    plan = dataclasses.replace(plan, adapters=adapters, max_cpu_loras=len(adapters))
    with VllmBox("shared", plan, log=folder / "box.log") as box:
        box.start()
        box.wait_until_ready()
        yield box


@pytest.fixture(scope="module")
def alone(tiny_agents: TinyAgents, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmBox]:
    """The first adapter merged into the base, as a model that is served alone."""
    folder = tmp_path_factory.mktemp("alone")
    model = exported(MERGED, "merged", folder / "merged")
    plan = BoxPlan(model=model, port=free_port(), served_name=MERGED)
    with VllmBox("alone", plan, log=folder / "box.log") as box:
        box.start()
        box.wait_until_ready()
        yield box


def evaluate(*arguments: str | Path, out: Path) -> tuple[int, dict[str, Any]]:
    """`failsoft eval run`: its exit code, and its result."""
    with pytest.raises(SystemExit) as ended:
        main(["eval", "run", *map(str, arguments), "--out", str(out), "--max-tokens", str(MAX_TOKENS)])
    code = ended.value.code
    return (code if isinstance(code, int) else 0), json.loads((out / "result.json").read_text())


def test_a_merged_model_served_alone_and_the_same_adapter_beside_others_pass(
    sets: Path, shared: VllmBox, alone: VllmBox, tmp_path: Path
) -> None:
    code, result = evaluate(
        sets / f"{MERGED}.jsonl", "--baseline", alone.url, "--candidate", shared.url, out=tmp_path / "run"
    )
    assert code == 0, json.dumps(result)[:2000]


def test_the_wrong_exports_trip_it_and_nothing_else_does(sets: Path, shared: VllmBox, tmp_path: Path) -> None:
    wrong = [part for adapter in WRONG for part in ("--candidate", f"{adapter}={shared.url}#{adapter}-wrong")]
    code, result = evaluate(
        sets, "--baseline", shared.url, "--candidate", shared.url, *wrong, "--concurrency", "16", out=tmp_path / "run"
    )
    assert code == 1
    tripped = {one["customer"] for one in result["tripped"]}
    assert tripped == set(WRONG)
    assert {one["customer"] for one in result["customers"]} == set(ADAPTER_NAMES)
