"""Adapters that are as they should be pass without a word."""

from __future__ import annotations

import json

import pytest

from tests.adapters.bench import BASE, LINEARS, PREFIX, RANK, TARGETS, Bench, peft_config, tensors


@pytest.mark.parametrize(("dtype", "base_dtype"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16")])
def test_an_adapter_as_peft_saves_it_passes(bench: Bench, dtype: str, base_dtype: str) -> None:
    base = bench.a_base(dtype=base_dtype)
    verdict = bench.check(bench.adapter(made=tensors(dtype=dtype)), base=base, options=["--max-lora-rank", "16"])
    assert (verdict.code, verdict.codes(), verdict.codes(severity="warning")) == (0, set(), set())
    adapter = verdict.adapter("acme_v3")
    assert (adapter["rank"], adapter["scaling"], adapter["dtypes"], adapter["padding"]) == (16, [2.0], [dtype], 0.0)


def test_a_fleet_that_agrees_passes_strictly(bench: Bench) -> None:
    folders = [bench.adapter(f"customer_{number}") for number in range(4)]
    assert bench.check(*folders, options=["--strict", "--max-lora-rank", "16"]).code == 0


def test_a_record_of_the_same_training_passes(bench: Bench) -> None:
    record = peft_config() | {"steps": 300, "final_loss": 0.02}
    assert bench.check(bench.adapter(record=record), options=["--strict"]).code == 0


def test_patterns_that_the_tensors_follow_pass(bench: Bench) -> None:
    made = tensors(8, linears={"self_attn.q_proj": LINEARS["self_attn.q_proj"]})
    made |= tensors(4, linears={"mlp.down_proj": LINEARS["mlp.down_proj"]})
    folder = bench.adapter(
        made=made,
        rank=8,
        target_modules=["q_proj", "down_proj"],
        rank_pattern={"down_proj": 4},
        alpha_pattern={r"layers\.\d+\.mlp\.down_proj": 8},
    )
    verdict = bench.check(folder)
    assert (verdict.code, verdict.adapter("acme_v3")["scaling"]) == (0, [2.0])


def test_the_output_layer_and_the_embedding_may_be_adapted(bench: Bench) -> None:
    made = tensors(linears={"self_attn.q_proj": (32, 32)})
    (some,) = [made[name] for name in made if name == f"{PREFIX}.0.self_attn.q_proj.lora_A.weight"]
    dtype, values = some
    wide = values.repeat(4, axis=1)[:, :100]
    made["base_model.model.lm_head.lora_A.weight"] = some
    made["base_model.model.lm_head.lora_B.weight"] = (dtype, wide.T)
    made["base_model.model.model.embed_tokens.lora_embedding_A"] = (dtype, wide)
    made["base_model.model.model.embed_tokens.lora_embedding_B"] = (dtype, values.T)
    assert bench.check(bench.adapter(made=made, target_modules=["q_proj", "lm_head", "embed_tokens"])).code == 0


def test_rslora_scales_by_the_root_of_the_rank(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(use_rslora=True, lora_alpha=8))
    assert (verdict.code, verdict.adapter("acme_v3")["scaling"]) == (0, [2.0])


def test_targets_may_be_one_regular_expression(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(target_modules=rf".*\.({'|'.join(TARGETS)})"))
    assert (verdict.code, verdict.codes(severity="info")) == (0, {"no-training-record"})


def test_layers_may_be_left_out_where_the_configuration_says_so(bench: Bench) -> None:
    assert bench.check(bench.adapter(made=tensors(layers=1), layers_to_transform=[0])).code == 0


def test_fused_projections_have_the_shape_of_their_parts(bench: Bench) -> None:
    base = bench.a_base(model_type="phi3")
    linears = {"self_attn.qkv_proj": (32, 64), "self_attn.o_proj": (32, 32), "mlp.gate_up_proj": (32, 96)}
    targets = ["qkv_proj", "o_proj", "gate_up_proj"]
    assert bench.check(bench.adapter(made=tensors(linears=linears), target_modules=targets), base=base).code == 0


def test_the_base_is_known_by_what_its_configuration_was_loaded_from(bench: Bench) -> None:
    base = bench.a_base("base", _name_or_path=f"/models/{BASE}/")
    assert bench.check(bench.adapter(), base=base).code == 0


def test_the_base_may_be_a_snapshot_in_hugging_faces_cache(bench: Bench) -> None:
    commit = "0e9e39f249a16976918f6564b8830bc894c89659"
    base = bench.a_base(f"models--example--{BASE}/snapshots/{commit}")
    folders = [
        bench.adapter("named", revision=commit[:12]),
        bench.adapter("by_path", base_model_name_or_path=f"/cache/hub/models--example--{BASE}/snapshots/{commit}"),
    ]
    verdict = bench.check(*folders, base=base)
    assert (verdict.code, verdict.facts["base"]["revision"]) == (0, commit)
    assert verdict.codes(severity="info") == {"no-training-record"}


def test_rank_and_base_come_from_the_policies(bench: Bench) -> None:
    policies = bench.policies(max_lora_rank=32, model_path=str(bench.base))
    arguments = ["backend", "check", str(bench.adapter()), "--policies", str(policies), "--json"]
    code, out, _ = bench.command(*arguments)
    (adapter,) = json.loads(out)["adapters"]
    assert (code, adapter["rank"], adapter["padding"]) == (0, 16, 0.5)
    assert adapter["slot_bytes"] == 2 * adapter["loaded_bytes"]


def test_sizes_are_those_of_the_file_and_of_the_numbers(bench: Bench) -> None:
    folder = bench.adapter()
    adapter = bench.check(folder, base=bench.a_base(dtype="bfloat16")).adapter("acme_v3")
    parameters = 2 * RANK * sum(inputs + outputs for inputs, outputs in LINEARS.values())
    assert adapter["size_bytes"] == (folder / "adapter_model.safetensors").stat().st_size
    assert adapter["loaded_bytes"] == 2 * parameters  # as bfloat16, whatever the file has
