"""Kinds of adapters that PEFT trains and vLLM refuses, or serves without a part of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.adapters.bench import PREFIX, Bench, tensors

Q = f"{PREFIX}.0.self_attn.q_proj"
SOME = ("F32", np.full(32, 0.1, "<f4"))


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"use_dora": True}, "dora"),
        ({"bias": "all"}, "bias"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "bias"),
        ({"modules_to_save": ["lm_head", "embed_tokens"]}, "modules-to-save"),
        ({"init_lora_weights": "pissa_niter_4"}, "base-weights-changed"),
        ({"init_lora_weights": "olora"}, "base-weights-changed"),
        ({"alora_invocation_tokens": [1, 2]}, "feature-unserved"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "feature-unserved"),
        ({"use_bdlora": {"nblocks": 2}}, "feature-unserved"),
        ({"use_qalora": True}, "feature-unserved"),
        ({"trainable_token_indices": [5]}, "feature-unserved"),
        ({"peft_type": "LOHA"}, "not-lora"),
    ],
)
def test_a_configuration_that_vllm_does_not_serve_is_refused(bench: Bench, wrong: dict[str, Any], code: str) -> None:
    verdict = bench.check(bench.adapter(**wrong))
    assert (verdict.code, verdict.codes()) == (1, {code})


@pytest.mark.parametrize(
    "right",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "EVA"},
        {"init_lora_weights": False},
        {"modules_to_save": []},
        {"modules_to_save": ["classifier"]},
        {"alora_invocation_tokens": []},
        {"fan_in_fan_out": False, "lora_dropout": 0.05, "a_key_of_next_year": {"x": 1}},
    ],
)
def test_what_leaves_a_plain_lora_passes(bench: Bench, right: dict[str, Any]) -> None:
    assert bench.check(bench.adapter(**right)).code == 0


def test_magnitude_vectors_are_doras_whatever_the_configuration_says(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(made=tensors() | {f"{Q}.lora_magnitude_vector": SOME}))
    assert (verdict.code, verdict.codes()) == (1, {"dora"})


@pytest.mark.parametrize(
    "name",
    [f"{Q}.bias", f"{Q}.base_layer.bias", "base_model.model.lm_head.weight", f"{Q}.lora_B.bias", f"{Q}.lora_diag"],
)
def test_a_tensor_that_is_no_lora_is_refused(bench: Bench, name: str) -> None:
    verdict = bench.check(bench.adapter(made=tensors() | {name: SOME}))
    assert (verdict.codes(), verdict.finding("tensor-unknown")["where"]) == ({"tensor-unknown"}, [name])


def test_embeddings_that_were_saved_along_are_a_warning(bench: Bench) -> None:
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    verdict = bench.check(bench.adapter(made=tensors() | {name: ("F32", np.ones((100, 32), "<f4"))}))
    assert (verdict.code, verdict.codes(severity="warning")) == (0, {"embeddings-saved"})


@pytest.mark.parametrize("gone", ["lora_A", "lora_B"])
def test_half_a_pair_is_refused(bench: Bench, gone: str) -> None:
    made = tensors()
    del made[f"{Q}.{gone}.weight"]
    assert "pair-incomplete" in bench.check(bench.adapter(made=made)).codes()


@pytest.mark.parametrize("shape", [(16,), (16, 32, 1), (0, 32)])
def test_a_tensor_of_no_matrixs_shape_is_refused(bench: Bench, shape: tuple[int, ...]) -> None:
    made = tensors() | {f"{Q}.lora_A.weight": ("F32", np.ones(shape, "<f4"))}
    assert "shape-mismatch" in bench.check(bench.adapter(made=made)).codes()


def test_a_file_without_tensors_is_refused(bench: Bench) -> None:
    assert "no-tensors" in bench.check(bench.adapter(made={})).codes()
