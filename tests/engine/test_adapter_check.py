"""`failsoft backend check` agrees with PEFT, which saved the tiny model's adapters, and with vLLM."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.adapters.features import check_features
from backend.adapters.lora_config import parse
from backend.adapters.ranks import check_against_limit
from backend.launch import ENGINE_PYTHON
from backend.tiny_model.artefacts import TinyModel
from gateway.cli.main import main
from tests.adapters.bench import PREFIX, TARGETS, Bench, peft_config, sliced, tensors

pytestmark = pytest.mark.engine

BASE_NAME = "failsoft-tiny-llama"
Q = f"{PREFIX}.0.self_attn.q_proj"
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.layers.11.mlp.up_proj")
CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"r": 32},
    {"r": 64},
    {"use_rslora": True},
    {"rank_pattern": {"down_proj": 4}},
    {"rank_pattern": {"down_proj": 64}},
    {"rank_pattern": {r"layers\.1\.mlp\.\w*": 4, "down_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 8}},
    {"alpha_pattern": {"self_attn.q_proj": 64, "proj": 3}},
    {"use_dora": True},
    {"bias": "all"},
    {"lora_bias": True},
    {"modules_to_save": ["lm_head"]},
    {"modules_to_save": ["score"]},
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "gaussian"},
    {"init_lora_weights": "EVA"},
    {"alora_invocation_tokens": [1]},
    {"layer_replication": [[0, 1]]},
    {"use_bdlora": {"nblocks": 2}},
    {"use_qalora": True},
)
ASK_VLLM = """
import json, sys
from types import SimpleNamespace
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
configurations, modules, folders, linears = json.load(sys.stdin)
said = []
for configuration in configurations:
    helper = PEFTHelper.from_dict(configuration)
    try:
        helper.validate_legal(SimpleNamespace(max_lora_rank=32))
        refused = False
    except ValueError:
        refused = True
    said.append([refused, [helper.get_rank_and_scaling(module) for module in modules]])
loaded = []
for folder in folders:
    helper = PEFTHelper.from_local_dir(folder, 1024)
    try:
        helper.validate_legal(SimpleNamespace(max_lora_rank=32))
        LoRAModel.from_local_checkpoint(folder, set(linears), helper, lora_model_id=1, device="cpu")
        loaded.append(True)
    except (ValueError, RuntimeError):
        loaded.append(False)
print("\\n" + json.dumps([said, loaded]))
"""


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_the_tiny_models_adapters_pass(tiny_model: TinyModel) -> None:
    folders = map(str, tiny_model.adapters.values())
    arguments = ["--base", str(tiny_model.base), "--base-name", BASE_NAME, "--max-lora-rank", "16", "--strict"]
    with pytest.raises(SystemExit) as ended:
        main(["backend", "check", *folders, *arguments])
    assert ended.value.code == 0


@pytest.mark.timeout(120)
def test_the_check_finds_what_vllm_refuses_and_more_and_scales_as_vllm_does(bench: Bench) -> None:
    configurations = [peft_config() | changes for changes in CONFIGURATIONS]
    refused_by_vllm = [
        bench.adapter("dora", made=tensors() | {f"{Q}.lora_magnitude_vector": ("F32", np.ones(32, "<f4"))}),
        bench.adapter(
            "saved", made=tensors() | {"base_model.model.lm_head.weight": ("F32", np.ones((100, 32), "<f4"))}
        ),
        bench.adapter("strange", made=tensors(linears={"self_attn.c_attn": (32, 96)})),
    ]
    loaded_in_silence = [
        bench.adapter("config", made=tensors(16), r=8),
        bench.adapter("cut", made=sliced(tensors(16), 8)),
        bench.adapter("cut_b", made=sliced(tensors(16), 8, "B")),
        bench.adapter("other_base", base_model_name_or_path="example/other"),
        bench.adapter("no_alpha", lora_alpha=0),
        bench.adapter("more_layers", made=tensors(layers=3)),
        bench.adapter("untrained", made={n: (d, v * ("lora_A" in n)) for n, (d, v) in tensors().items()}),
    ]
    sound = bench.adapter("sound")
    folders = [*refused_by_vllm, *loaded_in_silence, sound]
    asked = subprocess.run(
        [str(ENGINE_PYTHON), "-c", ASK_VLLM],
        input=json.dumps([configurations, MODULES, [*map(str, folders)], TARGETS]),
        capture_output=True,
        text=True,
        cwd=bench.folder,
        timeout=100,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    said, loaded = json.loads(asked.stdout.splitlines()[-1])
    for raw, (refused, by_module) in zip(configurations, said, strict=True):
        config, findings = parse(raw)
        assert config is not None, findings
        found = [*check_features(raw), *check_against_limit(config, None, 32)]
        assert bool(found) == refused, (raw, found)
        for module, (rank, scaling) in zip(MODULES, by_module, strict=True):
            assert (config.rank_of(module), math.isclose(config.scaling_of(module), scaling)) == (rank, True), raw
    assert loaded == [folder not in refused_by_vllm for folder in folders]
    for folder in folders:
        assert bench.check(folder).code == (folder != sound), folder
