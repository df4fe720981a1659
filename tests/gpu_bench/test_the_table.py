"""From measurements to the table: every figure in its place, and none where nothing was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.gpu.kept import Kept
from bench.gpu.spread import added_ms, spread_ms
from bench.gpu.table import COLUMNS, NOTHING, notes, rows, text
from tests.gpu_bench.made import FIELD, load, settings, whole


def cells(**changes: object) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in rows(settings(**changes), whole())}


def test_latency_and_throughput_stand_beside_those_of_the_base_and_of_the_report() -> None:
    found = cells()
    assert found["p50 latency, 256 tokens"] == ["410 / 470 ms", "2,000 ms", "2,400 ms"]
    assert found["output tokens a second a box, at this load"] == ["about 3,100", "1,270", "1,250"]
    assert found["multi-LoRA against base, p50 latency"][-1] == "+20%"
    assert found["answered whole, of requests"][-1] == "599 of 600"


def test_memory_is_reckoned_from_shapes_and_read_from_vllm() -> None:
    found = cells()
    assert found["base weights in memory, reckoned"][-1] == "2 × 16.06 GB"
    assert found["adapters in main memory, a box, reckoned"][-1] == "1.72 GB"
    assert found["8 slots of rank 16, reckoned"][-1] == "738.9 MB"
    assert found["model as loaded, with its slots, by vLLM"][-1] == "16.60 GB"
    assert cells(max_lora_rank=64)["8 slots of rank 64, reckoned"][-1] == "2.96 GB"


def test_swaps_are_differences_of_medians_with_their_spread() -> None:
    found = cells()
    assert found["cold swap from the CPU pool"] == ["30 to 50 ms", NOTHING, "+38.00 ms (36.40 to 39.60)"]
    assert found["cold swap from the disk"][-1].startswith("+382.00 ms")
    assert found["the gateway adds to the first token"][-1] == "+0.50 ms (0.50 to 0.50)"
    assert found["the gateway adds to 16 tokens"][-1].startswith("+1.00 ms")


def test_what_was_not_measured_has_no_figure_and_is_named() -> None:
    measured = {"swap": whole()["swap"]}
    found = {row[0]: row[-1] for row in rows(FIELD, measured)}
    assert found["cold swap from the CPU pool"] != NOTHING
    assert found["p50 latency, tokens"] == found["cold swap from the disk"] == NOTHING
    assert any("load, gateway, disk, base" in note for note in notes(FIELD, measured))


def test_a_client_that_was_too_slow_is_told_of() -> None:
    measured = {**whole(), "base": load(1.0, 1.0, 1.0, "the client took 99% of its core")}
    assert "base: the client took 99% of its core." in notes(FIELD, measured)


def test_figures_of_a_cpu_are_said_to_be_none_of_a_gpu() -> None:
    assert any("says nothing of a GPU" in note for note in notes(settings(device="cpu"), whole()))
    assert not any("says nothing of a GPU" in note for note in notes(FIELD, whole()))


def test_each_row_has_a_cell_for_each_column_and_the_columns_stand_under_each_other() -> None:
    table = rows(FIELD, whole())
    assert {len(row) for row in table} == {len(COLUMNS)}
    lines = text(table).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_medians_are_subtracted_and_the_pairs_spread_is_kept() -> None:
    found = added_ms([0.011, 0.032, 0.013], [0.001, 0.002, 0.003])
    assert found["p50"] == 11.0
    assert (found["with"]["p50"], found["without"]["p50"], found["count"]) == (13.0, 2.0, 3)
    assert found["p10"] == pytest.approx(10.0)
    with pytest.raises(ValueError, match="nothing was measured"):
        spread_ms([])


def test_sections_are_kept_while_what_they_depend_on_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "measurements.json"
    Kept(path).put("swap", FIELD, {"pool": 1})
    Kept(path).put("load", settings(extra=("--enforce-eager",)), {"report": 2})
    kept = Kept(path)
    assert kept.all(FIELD) == {"swap": {"pool": 1}}
    assert kept.get("load", settings(extra=("--enforce-eager",), singles=5)) == {"report": 2}
    assert kept.get("swap", settings(seconds=5.0)) == {"pool": 1}
    assert kept.get("swap", settings(singles=5)) is None
    assert kept.get("swap", settings(vllm="0.24.0")) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapters": 8}, "8 adapters all fit into 8 slots"),
        ({"max_cpu_loras": 39}, "the pool holds 39 of 40 adapters"),
        ({"rank": 32}, "rank 32 is over --max-lora-rank 16"),
        ({"max_model_len": 512}, "too short for prompts and answers"),
    ],
)
def test_what_could_not_be_measured_is_refused_before_anything_starts(changes: dict[str, int], said: str) -> None:
    assert FIELD.problems() == []
    assert any(said in problem for problem in settings(**changes).problems())
