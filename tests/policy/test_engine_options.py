"""The keys under ``engine`` in fleet.yaml: what is refused when policies are read, and at which line."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from gateway.errors import PolicyError
from gateway.policy.engine_options import EngineOptions, merged
from gateway.policy.policy_set import policy_set_from_document
from gateway.policy.validate import read_folder

CUSTOMER = 'customer: acme\napi_keys: ["sha256:' + "9f" * 32 + '"]\nadapters: [acme_v3]\n'


def write(folder: Path, engine: str, box: str = "") -> Path:
    (folder / "customers").mkdir()
    (folder / "customers" / "acme.yaml").write_text(CUSTOMER)
    (folder / "fleet.yaml").write_text(
        dedent(f"""\
        fleets:
          main:
            base_model: base
            engine: {{{engine}}}
            boxes:
              a: {{url: "http://10.0.0.11:8000", max_loras: 8{box}}}
        """)
    )
    return folder


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        (
            "gpu_memory_utilization: 1.2",
            "fleet.yaml:4:14: error: fleets.main.engine.gpu_memory_utilization: has to be over 0",
        ),
        ("gpu_memory_utilisation: 0.9", "did you mean gpu_memory_utilization?"),
        ("max_num_seqs: 4", "is less than max_loras of a (8), so that slots could never all be used"),
        ("max_num_seqs: 64, max_queued_requests: 63", "is less than max_num_seqs (64)"),
        ("drain: 30", "is not a duration"),
        ("dtype: int4", "has to be 'auto'"),
        ("env: {HF_TOKEN: hf_abcdef}", "write a reference such as ${HF_TOKEN}"),
        ("env: {VLLM_API_KEY: x}", "write the box's api_key instead"),
        (
            "env: {VLLM_PLUGINS: lora_filesystem_resolver, VLLM_LORA_RESOLVER_CACHE_DIR: /x}",
            "turns on a LoRA resolver of vLLM's by VLLM_PLUGINS",
        ),
        ('env: {VLLM_PLUGINS: "mine,lora_hf_hub_resolver"}', "turns on a LoRA resolver"),
        ("env: {VLLM_LORA_RESOLVER_CACHE_DIR: /x}", "by VLLM_LORA_RESOLVER_CACHE_DIR"),
        ("env: {VLLM_LORA_RESOLVER_HF_REPO_LIST: acme/adapters}", "by VLLM_LORA_RESOLVER_HF_REPO_LIST"),
        ('env: {VLLM_PLUGINS: "${PLUGINS}"}', "turns on a LoRA resolver of vLLM's by VLLM_PLUGINS, or may"),
        ("extra: [4]", "put it in quotes"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(engine: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as refused:
        read_folder(write(tmp_path, engine))
    assert complaint in str(refused.value)


def test_other_plugins_of_vllm_may_be_named(tmp_path: Path) -> None:
    fleet = read_folder(write(tmp_path, 'env: {VLLM_PLUGINS: "mine,yours"}')).fleet.fleets["main"]
    assert fleet.engine is not None
    assert fleet.engine.env == {"VLLM_PLUGINS": "mine,yours"}


def test_no_message_repeats_a_secret(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as refused:
        read_folder(write(tmp_path, "env: {HF_TOKEN: hf_abcdef}"))
    assert "hf_abcdef" not in str(refused.value)


def test_a_contradiction_is_told_where_the_box_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as refused:
        read_folder(write(tmp_path, "max_num_seqs: 64", box=", engine: {max_num_seqs: 2}"))
    assert "fleets.main.boxes.a.engine.max_num_seqs" in str(refused.value)


def test_a_box_s_keys_take_the_place_of_the_fleet_s_one_by_one() -> None:
    fleet = EngineOptions.model_validate({"max_model_len": 8192, "drain": "10s", "extra": ["--enforce-eager"]})
    box = EngineOptions.model_validate({"drain": "60s", "extra": []})
    found = merged(fleet, box)
    assert (found.max_model_len, found.drain, found.extra) == (8192, 60.0, [])
    assert merged(None, box) == box
    assert merged(fleet, None) == fleet
    assert merged(None, None) == EngineOptions()


def test_the_options_come_back_from_a_store_as_they_were_written(tmp_path: Path) -> None:
    read = read_folder(write(tmp_path, 'max_num_seqs: 64, drain: 45s, env: {HF_TOKEN: "${HF_TOKEN}"}'))
    again = policy_set_from_document(read.document)
    assert again.fleet == read.fleet
    assert again.digest == read.digest
