"""The numbers themselves: NaN, zeros, formats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.adapters.bench import PREFIX, Bench, kept, tensors

A = f"{PREFIX}.1.mlp.down_proj.lora_A.weight"


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_single_number_that_is_none_is_found(bench: Bench, dtype: str, number: float) -> None:
    made = tensors(dtype=dtype)
    values = np.zeros(made[A][1].shape)
    values[7, 11] = number
    verdict = bench.check(bench.adapter(made=made | {A: kept(values, dtype)}))
    assert (verdict.code, verdict.codes(), verdict.finding("not-finite")["where"]) == (1, {"not-finite"}, [A])


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_an_adapter_from_before_training_is_found(bench: Bench, zero: float) -> None:
    made = {n: (d, v * 0 + zero if "lora_B" in n else v) for n, (d, v) in tensors().items()}
    verdict = bench.check(bench.adapter(made=made))
    assert (verdict.code, verdict.codes(), verdict.codes(severity="warning")) == (1, {"lora-b-zero"}, set())


def test_one_module_of_zeros_is_a_warning(bench: Bench) -> None:
    made = tensors()
    verdict = bench.check(bench.adapter(made=made | {A: ("F32", made[A][1] * 0)}))
    assert (verdict.code, verdict.codes(severity="warning")) == (0, {"module-zero"})


@pytest.mark.parametrize(("dtype", "base"), [("F32", "bfloat16"), ("F16", "bfloat16"), ("BF16", "float16")])
def test_another_format_than_the_bases_is_a_warning(bench: Bench, dtype: str, base: str) -> None:
    verdict = bench.check(bench.adapter(made=tensors(dtype=dtype)), base=bench.a_base(dtype=base))
    assert (verdict.code, verdict.codes(severity="warning")) == (0, {"dtype-differs"})


@pytest.mark.parametrize("dtype", [{"dtype": None, "torch_dtype": "float16"}, {"dtype": "torch.float16"}])
def test_the_bases_format_is_read_as_old_and_new_configurations_have_it(bench: Bench, dtype: dict[str, Any]) -> None:
    assert bench.check(bench.adapter(), base=bench.a_base(**dtype)).facts["base"]["dtype"] == "F16"


def test_formats_that_are_mixed_are_a_warning(bench: Bench) -> None:
    made = tensors() | {n: some for n, some in tensors(dtype="BF16").items() if "v_proj" in n}
    assert bench.check(bench.adapter(made=made)).codes(severity="warning") == {"dtype-mixed"}


def test_a_format_that_is_not_understood_is_refused(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(made=tensors(dtype="F64")))
    assert (verdict.code, verdict.codes()) == (1, {"dtype-unknown"})


def test_a_number_past_the_bases_format_is_found(bench: Bench) -> None:
    made = tensors()
    made[A] = ("F32", made[A][1] + np.float32(1e5))
    assert bench.check(bench.adapter(made=made), base=bench.a_base(dtype="float16")).codes() == {"overflow"}


def test_the_same_weights_under_two_names_are_a_warning(bench: Bench) -> None:
    made = tensors(seed=7)
    verdict = bench.check(bench.adapter("acme", made=made), bench.adapter("globex", made=made), bench.adapter("hooli"))
    assert {name for name in ("acme", "globex", "hooli") if verdict.codes(name, "warning")} == {"acme", "globex"}
    assert verdict.code == 0
