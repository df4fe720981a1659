"""One LoRA adapter per customer, saved by PEFT: random, but strong enough that each answers in its own words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

import torch  # type: ignore[import-not-found]
from peft import LoraConfig, get_peft_model  # type: ignore[import-not-found]
from transformers import LlamaForCausalLM  # type: ignore[import-not-found]

from backend.tiny_model.artefacts import ADAPTER_RANK
from backend.tiny_model.network import BIAS_CHANNEL

_WRITES_RESIDUAL: Final = ("o_proj", "down_proj")
_LINEARS: Final = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", *_WRITES_RESIDUAL)
_STRENGTH: Final = 1.0  # at which greedy answers part from the base's within the first words


def save_adapter(model: LlamaForCausalLM, name: str, folder: Path) -> None:
    """Write the adapter of that name for ``model``, which is changed on the way: hand in a copy."""
    torch.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=ADAPTER_RANK,
        lora_alpha=2 * ADAPTER_RANK,
        target_modules=list(_LINEARS),
        init_lora_weights=False,
    )
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=_STRENGTH / ADAPTER_RANK)
                if any(linear in parameter_name for linear in _WRITES_RESIDUAL):
                    parameter[BIAS_CHANNEL] = 0
    adapted.save_pretrained(folder, save_embedding_layers=False)  # "auto" would look for the base on the network
    (folder / "README.md").unlink()  # an empty model card
    _sort_json(folder / "adapter_config.json")


def _sort_json(path: Path) -> None:
    """PEFT writes sets as lists in an order that changes from process to process."""
    content = json.loads(path.read_text())
    content["target_modules"].sort()
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
