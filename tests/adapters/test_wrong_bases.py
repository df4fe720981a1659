"""An adapter of another base, which vLLM loads in silence where the shapes fit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.adapters.bench import BASE, LINEARS, TARGETS, Bench, tensors

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
OTHER = "5206a32e0bd3067aef1ce90f5528ade7d866253f"


def test_another_base_of_the_same_shape_is_found_by_its_name(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(base_model_name_or_path="example/Tiny-Llama"))
    assert (verdict.code, verdict.codes()) == (1, {"base-name-mismatch"})
    said = verdict.finding("base-name-mismatch")
    assert '"Tiny-Llama"' in said["message"]
    assert BASE in said["message"]


@pytest.mark.parametrize("name", [BASE.lower(), f"elsewhere/{BASE}", f"/models/{BASE}/", f"C:\\models\\{BASE}"])
def test_only_the_last_part_of_the_name_counts(bench: Bench, name: str) -> None:
    assert bench.check(bench.adapter(base_model_name_or_path=name)).code == 0


def test_the_command_may_say_what_the_base_is_called(bench: Bench) -> None:
    folder = bench.adapter(base_model_name_or_path="example/Renamed")
    assert bench.check(folder, options=["--base-name", "example/Other", "--base-name", "Renamed"]).code == 0
    assert bench.check(folder, options=["--base-name", "Other"]).codes() == {"base-name-mismatch"}
    own = bench.adapter("own")
    assert bench.check(own, options=["--base-name", "Other"]).codes() == {"base-name-mismatch"}


@pytest.mark.parametrize("name", [None, "", " "])
def test_an_adapter_that_names_no_base_is_a_warning(bench: Bench, name: str | None) -> None:
    folder = bench.adapter(base_model_name_or_path=name)
    assert bench.check(folder).codes(severity="warning") == {"base-name-missing"}
    assert bench.check(folder, options=["--strict"]).code == 1


def test_another_revision_of_the_base_is_found(bench: Bench) -> None:
    folder = bench.adapter(revision=COMMIT)
    assert bench.check(folder, options=["--base-revision", OTHER]).codes() == {"revision-mismatch"}
    assert bench.check(folder, options=["--base-revision", COMMIT[:8]]).code == 0


def test_the_revision_that_was_downloaded_is_known(bench: Bench) -> None:
    told = bench.base / ".cache" / "huggingface" / "download"
    told.mkdir(parents=True)
    (told / "config.json.metadata").write_text(f"{OTHER}\n0b32ea\n1760000000.5\n")
    assert bench.check(bench.adapter(revision=COMMIT)).codes() == {"revision-mismatch"}


@pytest.mark.parametrize(("revision", "codes"), [(COMMIT, {"revision-unknown"}), ("main", set()), (None, set())])
def test_a_revision_that_cannot_be_compared_is_mentioned(bench: Bench, revision: str | None, codes: set[str]) -> None:
    verdict = bench.check(bench.adapter(revision=revision))
    assert (verdict.code, verdict.codes(severity="info")) == (0, codes | {"no-training-record"})


@pytest.mark.parametrize(
    "other",
    [
        {"hidden_size": 64, "head_dim": 8},
        {"num_key_value_heads": 4},
        {"num_attention_heads": 8},
        {"head_dim": 16},
        {"intermediate_size": 96},
    ],
)
def test_shapes_that_are_not_the_bases_are_found(bench: Bench, other: dict[str, Any]) -> None:
    verdict = bench.check(bench.adapter(), base=bench.a_base(**other))
    assert (verdict.code, verdict.codes()) == (1, {"shape-mismatch"})


def test_a_vocabulary_that_is_not_the_bases_is_found(bench: Bench) -> None:
    made = tensors(linears={"lm_head": (32, 128)})
    made = {name.replace("model.layers.0.", "").replace("model.layers.1.", ""): some for name, some in made.items()}
    verdict = bench.check(bench.adapter(made=made, target_modules=["lm_head"]))
    assert (verdict.codes(), verdict.finding("shape-mismatch")["where"]) == ({"shape-mismatch"}, ["lm_head"])


def test_a_base_with_fewer_layers_is_found(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(made=tensors(layers=4)))
    assert (verdict.code, verdict.codes()) == (1, {"module-unknown"})
    assert len(verdict.finding("module-unknown")["where"]) == 14


def test_a_base_with_more_layers_is_found(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(), base=bench.a_base(num_hidden_layers=3))
    assert (verdict.code, verdict.codes()) == (1, {"tensors-missing"})


def test_names_that_the_model_does_not_know_are_found(bench: Bench) -> None:
    made = {name.replace("model.model.layers", "model._orig_mod.layers"): some for name, some in tensors().items()}
    assert "module-unknown" in bench.check(bench.adapter(made=made)).codes()


def test_targets_without_tensors_are_found(bench: Bench) -> None:
    made = {name: some for name, some in tensors().items() if "v_proj" not in name}
    verdict = bench.check(bench.adapter(made=made))
    assert (verdict.codes(), len(verdict.finding("tensors-missing")["where"])) == ({"tensors-missing"}, 2)


def test_tensors_that_are_no_target_are_found(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(target_modules=["q_proj", "v_proj"]))
    assert (verdict.codes(), len(verdict.finding("module-untargeted")["where"])) == ({"module-untargeted"}, 10)


def test_a_target_that_the_base_has_not_is_a_warning(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(target_modules=[*TARGETS, "c_attn"]))
    assert (verdict.code, verdict.codes(severity="warning")) == (0, {"target-unknown"})


def test_without_targets_vllm_would_not_load_it(bench: Bench) -> None:
    folder = bench.adapter()
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace("target_modules", "targets"))
    assert bench.check(folder).codes() == {"config-invalid"}


def test_shapes_under_an_unknown_architecture_are_a_warning(bench: Bench) -> None:
    base = bench.a_base(model_type="falcon_h1")
    verdict = bench.check(bench.adapter(made=tensors(linears=LINEARS | {"mamba.in_proj": (7, 9)})), base=base)
    assert (verdict.codes(severity="warning"), "module-untargeted" in verdict.codes()) == ({"shapes-not-checked"}, True)
    assert bench.check(bench.adapter("plain"), base=base).code == 0


@pytest.mark.parametrize("model_type", ["qwen2", "gemma", "gemma2", "gemma3_text"])
def test_an_output_layer_is_refused_where_vllm_adapts_none(bench: Bench, model_type: str) -> None:
    made = {
        name.replace("model.layers.0.", ""): some
        for name, some in tensors(layers=1, linears={"lm_head": (32, 100)}).items()
    }
    verdict = bench.check(
        bench.adapter(made=made, target_modules=["lm_head"]), base=bench.a_base(model_type=model_type)
    )
    assert verdict.codes() == {"module-unknown"}
