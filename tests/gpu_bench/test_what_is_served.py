"""Model, tokenizer and adapters have the sizes that they should, and are such as vLLM and the checks take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backend.loadtest.question import WORDS, prompt_of, words
from backend.serve_plan import grouped
from backend.vllm_flags import release
from bench.gpu.artefacts import adapter_folders, base_folder, names
from bench.gpu.boxes import command, told_memory
from bench.gpu.settings import Kind
from bench.gpu.shape import LLAMA_3_1_8B, SHAPES, TINY, Shape
from bench.gpu.tokenizer import BEGIN, SPECIAL, TURN, merges, tokenizer
from tests.gpu_bench.made import settings

ADAPTERS = {"customer_01_v1": Path("/a/1"), "customer_02_v1": Path("/a/2")}


def test_the_large_shape_is_llama_3_1_8b_to_the_parameter() -> None:
    assert LLAMA_3_1_8B.parameters == 8_030_261_248


def test_its_adapters_take_about_what_those_of_the_field_report_do() -> None:
    assert LLAMA_3_1_8B.adapter_bytes(16) == pytest.approx(42e6, rel=0.03)
    assert 40 * LLAMA_3_1_8B.adapter_bytes(16) == pytest.approx(1.7e9, rel=0.03)


def test_a_slot_has_room_for_every_module_at_the_largest_rank() -> None:
    all_linear = 32 * 16 * 81920 * 2
    embedding_and_output = 2 * 16 * (128256 + 4096) * 2
    assert LLAMA_3_1_8B.slot_bytes(16) == all_linear + embedding_and_output
    assert LLAMA_3_1_8B.slot_bytes(64) == 4 * LLAMA_3_1_8B.slot_bytes(16)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_tokenizer_has_as_many_tokens_as_the_model_and_the_same_special_ones(shape: Shape) -> None:
    content, config = tokenizer(shape.vocabulary), shape.config()
    vocabulary = content["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(shape.vocabulary))
    assert (vocabulary[BEGIN], vocabulary[TURN]) == (config["bos_token_id"], config["eos_token_id"])
    assert {one["content"]: one["id"] for one in content["added_tokens"]} == {t: vocabulary[t] for t in SPECIAL}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_word_of_a_prompt_is_one_token(shape: Shape) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    real = tokenizers.Tokenizer.from_str(json.dumps(tokenizer(shape.vocabulary)))
    for word in WORDS:
        assert len(real.encode(f" {word}").ids) == 2, word  # with the token that all texts begin with
    prompt = prompt_of(200, words(1))
    assert real.decode(real.encode(prompt).ids) == prompt


def test_every_merge_joins_pieces_that_are_there_before() -> None:
    known = {chr(n) for n in range(0x180)}
    for left, right in merges(20_000):
        assert {left, right} <= known
        known.add(left + right)


def test_a_vocabulary_without_room_for_the_words_is_refused() -> None:
    with pytest.raises(ValueError, match="too small for the words"):
        tokenizer(300)


def test_the_adapters_pass_the_checks_that_real_ones_have_to_pass(tmp_path: Path) -> None:
    base = base_folder(tmp_path, TINY)
    made = adapter_folders(tmp_path, TINY, list(names(2).values()), 16, lambda what: None)
    asked = [sys.executable, "-m", "gateway.cli", "backend", "check", *map(str, made.values()), "--base", str(base)]
    done = subprocess.run([*asked, "--max-lora-rank", "16", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"error"' not in done.stdout
    content = [(path / "adapter_model.safetensors").read_bytes() for path in made.values()]
    assert content[0] != content[1]
    header = 8 + int.from_bytes(content[0][:8], "little")
    assert len(content[0]) - header == TINY.adapter_bytes(16)


def test_adapters_that_are_there_are_not_written_again_and_cut_off_ones_are(tmp_path: Path) -> None:
    wanted, told = list(names(3).values()), list[str]()
    made = adapter_folders(tmp_path, TINY, wanted, 16, told.append)
    before = {name: (path / "adapter_model.safetensors").stat().st_mtime_ns for name, path in made.items()}
    (made[wanted[1]] / "training_record.json").unlink()  # it is written last
    adapter_folders(tmp_path, TINY, wanted, 16, told.append)
    after = {name: (path / "adapter_model.safetensors").stat().st_mtime_ns for name, path in made.items()}
    assert [name for name in wanted if before[name] != after[name]] == [wanted[1]]
    assert ["writes 3" in told[0], "writes 1" in told[1]] == [True, True]


@pytest.mark.parametrize("kind", ["shared", "small-pool", "base-alone"])
@pytest.mark.parametrize("version", ["0.20.0", "0.21.1", "0.22", "0.23.0", "0.24", "0.25.1", "0.32.0"])
def test_a_release_is_given_no_flag_that_it_has_not_got(kind: Kind, version: str) -> None:
    asked = command(kind, settings(vllm=version), python="/p", base=Path("/m"), adapters=ADAPTERS, port=8000, number=1)
    for flag, *_ in grouped(asked.arguments[3:]):
        assert release(version).find(flag) is not None, flag


def flags_of(kind: Kind, **changes: object) -> dict[str, tuple[str, ...]]:
    asked = command(kind, settings(**changes), python="/p", base=Path("/m"), adapters=ADAPTERS, port=8000, number=1)
    return {group[0]: group[1:] for group in grouped(asked.arguments[3:])}


def test_a_box_is_started_as_the_field_report_has_it() -> None:
    found = flags_of("shared")
    wanted = {"max-loras": "8", "max-cpu-loras": "64", "max-lora-rank": "16", "max-model-len": "8192"}
    wanted |= {"gpu-memory-utilization": "0.9", "load-format": "dummy"}
    for name, value in wanted.items():
        assert found[f"--{name}"] == (value,), name
    assert found["--lora-modules"] == ("customer_01_v1=/a/1", "customer_02_v1=/a/2")


def test_the_small_pool_is_no_larger_than_the_slots_so_that_what_is_evicted_is_read_from_disk() -> None:
    found = flags_of("small-pool")
    assert found["--max-cpu-loras"] == found["--max-loras"] == ("8",)


def test_the_base_alone_has_no_lora_and_answers_to_the_adapters_names() -> None:
    found = flags_of("base-alone")
    assert found["--served-model-name"] == ("base", "customer_01_v1", "customer_02_v1")
    assert not any("lora" in flag for flag in found)


def test_each_of_several_boxes_has_a_gpu_of_its_own_and_a_single_one_what_it_is_given() -> None:
    def environment(boxes: int) -> dict[str, str]:
        some = settings(boxes=boxes)
        asked = command("shared", some, python="/p", base=Path("/m"), adapters=ADAPTERS, port=8000, number=1)
        return dict(asked.environment)

    assert environment(2)["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in environment(1)


def test_what_vllm_says_of_memory_is_read_from_its_log() -> None:
    log = "INFO Model loading took 15.75 GiB memory and 3.2 seconds\nINFO GPU KV cache size: 412,336 tokens, 50x\n"
    assert told_memory(log) == {"model_bytes": 15.75 * 1024**3, "kv_cache_tokens": 412336.0}
    assert told_memory("INFO nothing of it\n") == {"model_bytes": None, "kv_cache_tokens": None}
