"""Properties over all shapes, all numbers and all garbage."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.adapters.base_model import BaseModel, describe
from backend.adapters.check import Expectations, check_adapters
from backend.adapters.finding import Finding, shown
from backend.adapters.lora_config import LoraConfig, parse
from backend.adapters.name_pattern import PatternRefused, first_match, matches_whole
from backend.adapters.numbers import check_numbers
from backend.adapters.origin import check_origin
from backend.adapters.ranks import check_against_limit, check_ranks
from backend.adapters.scaling import check_scaling
from backend.adapters.shapes import check_shapes
from backend.adapters.tensors import Tensor, Weights, sort_out
from backend.adapters.training_record import check_record
from backend.adapters.weights import read_weights
from tests.adapters.bench import BASE, CONFIG, TARGETS, kept, peft_config, tensors, write_safetensors

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

sizes = st.integers(1, 6)
ranks = st.integers(1, 64)


@st.composite
def bases(draw: st.DrawFn) -> BaseModel:
    kv_heads = draw(sizes)
    config = CONFIG | {
        "hidden_size": 8 * draw(sizes),
        "intermediate_size": 8 * draw(sizes),
        "num_attention_heads": kv_heads * draw(sizes),
        "num_key_value_heads": kv_heads,
        "head_dim": 8 * draw(sizes),
        "num_hidden_layers": draw(sizes),
    }
    return describe(config, folders=[f"/models/{BASE}"])


def fitting(base: BaseModel, rank: int, **other_rank: int) -> list[Tensor]:
    """Tensors of every linear layer; ``other_rank``: of A or B."""
    found = []
    for module in base.modules():
        inputs, outputs = base.shape(module) or (0, 0)
        name = f"base_model.model.{module}"
        found.append(Tensor(f"{name}.lora_A.weight", "F32", (other_rank.get("A", rank), inputs), 0.5))
        found.append(Tensor(f"{name}.lora_B.weight", "F32", (outputs, other_rank.get("B", rank)), 0.5))
    return found


def config_of(rank: int, **changes: Any) -> LoraConfig:
    config, findings = parse(peft_config(rank, **changes))
    assert config is not None, findings
    return config


def judged(config: LoraConfig, found: list[Tensor], base: BaseModel) -> Iterator[Finding]:
    weights, findings = sort_out(0, "", found)
    yield from findings
    yield from check_origin(config, base)
    yield from check_ranks(config, weights)
    yield from check_against_limit(config, weights, 64)
    yield from check_scaling(config, weights, None)
    yield from check_shapes(config, weights, base)
    yield from check_numbers(weights, base)
    yield from check_record(config, config, weights)


@CALM
@given(bases(), ranks, st.booleans())
def test_whatever_fits_the_base_passes(base: BaseModel, rank: int, rslora: bool) -> None:
    config = config_of(rank, use_rslora=rslora)
    assert [finding.code for finding in judged(config, fitting(base, rank), base)] == []


@CALM
@given(bases(), ranks, ranks)
def test_whatever_rank_differs_is_found_by_its_name(base: BaseModel, claimed: int, held: int) -> None:
    codes = {finding.code for finding in judged(config_of(claimed), fitting(base, held), base)}
    due = set() if claimed == held else {"rank-mismatch-config" if claimed < held else "rank-mismatch-tensors"}
    assert {code for code in codes if code.startswith("rank-mismatch")} == due


@CALM
@given(bases(), ranks, ranks, st.sampled_from("AB"))
def test_whatever_half_is_cut_is_found(base: BaseModel, rank: int, other: int, half: str) -> None:
    codes = {finding.code for finding in judged(config_of(rank), fitting(base, rank, **{half: other}), base)}
    smaller = half if other < rank else "AB".replace(half, "")
    assert (f"rank-mismatch-{smaller.lower()}" in codes) == (rank != other)


@CALM
@given(bases(), bases(), ranks)
def test_whatever_base_differs_in_shape_is_found(own: BaseModel, other: BaseModel, rank: int) -> None:
    wrong = [finding for finding in judged(config_of(rank), fitting(own, rank), other) if finding.severity == "error"]
    assert bool(wrong) == (own.linears != other.linears or own.layers != other.layers)


@CALM
@given(st.data(), bases(), ranks)
def test_whatever_tensor_is_missing_is_found(data: st.DataObject, base: BaseModel, rank: int) -> None:
    found = fitting(base, rank)
    gone = data.draw(st.sets(st.sampled_from(found), min_size=1))
    left = [tensor for tensor in found if tensor not in gone]
    assert any(finding.severity == "error" for finding in judged(config_of(rank), left, base))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@CALM
@given(st.dictionaries(st.sampled_from(list(peft_config())), json_values), bases())
def test_whatever_a_configuration_holds_is_judged_and_not_raised(changes: dict[str, Any], base: BaseModel) -> None:
    config, findings = parse(peft_config(8) | changes)
    assert (config is None) == bool(findings)
    if config is not None:
        list(judged(config, fitting(base, 8), base))


@settings(CALM, max_examples=300)
@given(st.text("ab.*+?()[]{},1|-&~^$\\", max_size=30) | st.text(max_size=5), st.text("ab.1-", max_size=96))
def test_whatever_pattern_is_run_or_refused(pattern: str, module: str) -> None:
    for run in (lambda: first_match({pattern: 1}, module), lambda: matches_whole(pattern, module)):
        try:
            run()
        except PatternRefused as refused:
            assert str(refused)


def read(content: bytes) -> tuple[Weights | None, list[Finding]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter_model.safetensors"
        path.write_bytes(content)
        return read_weights(path, lambda count: None)


def file_of(made: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_safetensors(Path(folder) / "file", made)
        return (Path(folder) / "file").read_bytes()


WHOLE = file_of(tensors(2, layers=1))


@settings(CALM, max_examples=60)
@given(st.binary(max_size=200) | st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end]))
def test_whatever_file_it_is_is_judged_and_not_raised(content: bytes) -> None:
    weights, findings = read(content)
    assert weights is not None or findings


@settings(CALM, max_examples=60)
@given(st.integers(0, 1500), st.integers(0, 255))
def test_whatever_byte_is_flipped_is_judged_and_not_raised(position: int, byte: int) -> None:
    read(WHOLE[:position] + bytes([byte]) + WHOLE[position + 1 :])


@settings(CALM, max_examples=60)
@given(
    st.lists(st.floats(width=32) | st.sampled_from([0.0, -0.0, 1e-40]), min_size=1, max_size=40),
    st.sampled_from(["F32", "F16", "BF16"]),
)
def test_the_largest_number_is_the_one_that_numpy_finds(numbers: list[float], dtype: str) -> None:
    with np.errstate(over="ignore", under="ignore"):
        _, values = kept(np.array([numbers], dtype="<f4"), dtype)
    weights, _ = read(file_of({"base_model.model.x.lora_A.weight": (dtype, values)}))
    assert weights is not None
    plain = (values.astype("<u4") << 16).view("<f4") if dtype == "BF16" else values.astype("<f4")
    due, found = float(np.abs(plain).max()), weights.tensors[0].largest
    assert found == due or (math.isnan(found) and math.isnan(due))


@CALM
@given(st.text())
def test_whatever_is_shown_is_one_short_line(text: str) -> None:
    line = shown(text)
    assert len(line) <= 120
    assert line.isprintable()


def test_many_adapters_are_told_of_in_their_order(tmp_path: Path) -> None:
    folders = []
    for number in range(12):
        folder = tmp_path / f"customer_{number}"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(
            json.dumps(peft_config(lora_alpha=number + 1, target_modules=list(TARGETS)))
        )
        write_safetensors(folder / "adapter_model.safetensors", tensors(seed=number))
        folders.append(folder)
    read_bytes: list[int] = []
    base = describe(CONFIG, folders=[f"/models/{BASE}"])
    checked = check_adapters(folders, base, Expectations(), read_bytes.append)
    assert [adapter.folder for adapter in checked] == folders
    assert [adapter.scaling for adapter in checked] == [((number + 1) / 16,) for number in range(12)]
    assert sum(read_bytes) == sum(4 * v.size for _, v in tensors().values()) * 12
