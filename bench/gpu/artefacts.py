"""The model's folder and its adapters' folders, written once, without torch."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.gpu.shape import BYTES, Shape
from bench.gpu.tokenizer import settings, tokenizer

_DONE: Final = "made.json"
_SPREAD: Final = 0.01
_PARENT: Final = {"q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn"}


def names(count: int) -> dict[str, str]:
    """Adapters by customer."""
    width = max(2, len(str(count)))
    return {f"customer-{n:0{width}}": f"customer_{n:0{width}}_v1" for n in range(1, count + 1)}


def base_folder(folder: Path, shape: Shape) -> Path:
    """The model with its configuration and tokenizer, and no weights: vLLM draws them (``--load-format dummy``)."""
    path = folder / f"{shape.name}-base"
    if not (path / _DONE).exists():
        path.mkdir(parents=True, exist_ok=True)
        _write(path / "config.json", shape.config())
        _write(path / "tokenizer.json", tokenizer(shape.vocabulary))
        _write(path / "tokenizer_config.json", settings(shape.longest))
        _write(path / _DONE, {"shape": shape.name})
    return path


def adapter_folders(
    folder: Path, shape: Shape, wanted: list[str], rank: int, say: Callable[[str], None]
) -> dict[str, Path]:
    """A PEFT folder for each name; those that are whole stay as they are. Raises OSError, as where the disk is full."""
    root = folder / f"{shape.name}-rank-{rank}"
    found = {name: root / name for name in wanted}
    missing = [name for name, path in found.items() if not (path / "training_record.json").exists()]
    if missing:
        say(f"writes {len(missing)} adapters of {shape.adapter_bytes(rank) / 1e6:.1f} MB to {root}")
    for name in missing:
        scratch = root / f".{name}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        _write_adapter(scratch, name, shape, rank)
        shutil.rmtree(found[name], ignore_errors=True)
        scratch.rename(found[name])
    return found


def _write_adapter(path: Path, name: str, shape: Shape, rank: int) -> None:
    training = {
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted(shape.target_modules),
        "base_model_name_or_path": shape.name,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    rest = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "fan_in_fan_out": False}
    rest |= {"inference_mode": True, "lora_dropout": 0.0, "modules_to_save": None, "use_dora": False}
    _write(path / "adapter_config.json", {**training, **rest})
    write_tensors(path / "adapter_model.safetensors", dict(_tensors(shape, rank)), seed=name)
    _write(path / "training_record.json", training)


def _tensors(shape: Shape, rank: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names and dimensions as PEFT saves them."""
    for layer in range(shape.layers):
        for module in shape.target_modules:
            inputs, outputs = shape.features[module]
            place = f"base_model.model.model.layers.{layer}.{_PARENT.get(module, 'mlp')}.{module}"
            yield f"{place}.lora_A.weight", (rank, inputs)
            yield f"{place}.lora_B.weight", (outputs, rank)


def write_tensors(path: Path, tensors: dict[str, tuple[int, int]], seed: str) -> None:
    """Random bfloat16 tensors in the format of safetensors: a length, a JSON header, the bytes.

    Written here as numpy has no bfloat16, without which safetensors' own writer for numpy takes none.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dimensions in tensors.items():
        end = offset + dimensions[0] * dimensions[1] * BYTES
        header[name] = {"dtype": "BF16", "shape": list(dimensions), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    chance = np.random.default_rng(list(seed.encode()))
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for rows, columns in tensors.values():
            values = chance.standard_normal(rows * columns, dtype=np.float32) * np.float32(_SPREAD)
            file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())  # a bfloat16 is a float32's upper half


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
