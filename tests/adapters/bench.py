"""Adapters and a base made of numbers, wrong in whatever way a test asks for, and `failsoft backend check` on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from gateway.cli.main import main

BASE: Final = "Tiny-Llama-Instruct"
LAYERS: Final = 2
RANK: Final = 16
CONFIG: Final = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float32",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": LAYERS,
    "vocab_size": 100,
}
LINEARS: Final = {
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (32, 16),
    "self_attn.v_proj": (32, 16),
    "self_attn.o_proj": (32, 32),
    "mlp.gate_proj": (32, 48),
    "mlp.up_proj": (32, 48),
    "mlp.down_proj": (48, 32),
}
TARGETS: Final = tuple(name.partition(".")[2] for name in LINEARS)
PREFIX: Final = "base_model.model.model.layers"

Tensors = dict[str, tuple[str, np.ndarray[Any, Any]]]
"""Name to format and values; BF16 as the 16 bits."""


def tensors(
    rank: int = RANK, *, layers: int = LAYERS, dtype: str = "F32", seed: int = 1, linears: Mapping[str, Any] = LINEARS
) -> Tensors:
    """A and B of every linear layer, small and nowhere zero, in PEFT's naming."""
    numbers = np.random.default_rng(seed)
    made: Tensors = {}
    for layer in range(layers):
        for linear, (inputs, outputs) in linears.items():
            made[f"{PREFIX}.{layer}.{linear}.lora_A.weight"] = kept(numbers.normal(0, 0.1, (rank, inputs)), dtype)
            made[f"{PREFIX}.{layer}.{linear}.lora_B.weight"] = kept(numbers.normal(0, 0.1, (outputs, rank)), dtype)
    return made


def kept(values: np.ndarray[Any, Any], dtype: str) -> tuple[str, np.ndarray[Any, Any]]:
    """The values in a format; those of BF16 rounded towards zero."""
    if dtype == "BF16":
        return dtype, (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return dtype, values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype])


def sliced(made: Tensors, rank: int, which: str = "AB") -> Tensors:
    """The first ``rank`` rows of A and columns of B, or of one of them."""

    def cut(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if ".lora_A." in name:
            return values[:rank] if "A" in which else values
        return values[:, :rank] if "B" in which else values

    return {name: (dtype, cut(name, values)) for name, (dtype, values) in made.items()}


def write_safetensors(path: Path, made: Tensors) -> None:
    """By hand, so that files can be written that no library would."""
    header, data = {}, b""
    for name, (dtype, values) in made.items():
        content = np.ascontiguousarray(values).tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def peft_config(rank: int = RANK, **changes: Any) -> dict[str, Any]:
    """What PEFT writes, as far as it matters, changed as asked."""
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": f"example/{BASE}",
        "revision": None,
        "r": rank,
        "lora_alpha": 2 * rank,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": list(TARGETS),
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "use_dora": False,
    } | changes


@dataclass(frozen=True, slots=True)
class Verdict:
    """The exit code and the JSON of one run."""

    code: int
    facts: dict[str, Any]

    def adapter(self, name: str) -> dict[str, Any]:
        (found,) = [adapter for adapter in self.facts["adapters"] if adapter["name"] == name]
        return found

    def findings(self, name: str | None = None) -> Iterator[dict[str, Any]]:
        for adapter in self.facts["adapters"]:
            if name in (None, adapter["name"]):
                yield from adapter["findings"]

    def codes(self, name: str | None = None, severity: str = "error") -> set[str]:
        return {finding["code"] for finding in self.findings(name) if finding["severity"] == severity}

    def finding(self, code: str) -> dict[str, Any]:
        """The one finding of that code."""
        (found,) = [finding for finding in self.findings() if finding["code"] == code]
        return found


class Bench:
    """A base and adapters below one folder."""

    def __init__(self, folder: Path, printed: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._printed = printed
        self._seed = 0
        self.base = self.a_base()

    def a_base(self, name: str = BASE, **changes: Any) -> Path:
        folder = self.folder / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIG | changes))
        return folder

    def adapter(
        self,
        name: str = "acme_v3",
        *,
        made: Tensors | None = None,
        record: Mapping[str, Any] | None = None,
        rank: int = RANK,
        **config: Any,
    ) -> Path:
        """A sound adapter, save for what is handed in: tensors, a training record, keys of its configuration."""
        self._seed += 1
        folder = self.folder / "adapters" / name
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps(peft_config(rank, **config)))
        made = tensors(rank, seed=self._seed) if made is None else made
        write_safetensors(folder / "adapter_model.safetensors", made)
        if record is not None:
            (folder / "training_record.json").write_text(json.dumps(record))
        return folder

    def policies(self, **fleet: Any) -> Path:
        """A folder of policies with one fleet."""
        folder = self.folder / "policies"
        (folder / "customers").mkdir(parents=True)
        fleet = {"base_model": "base", "boxes": {"a": {"url": "http://127.0.0.1:8000"}}} | fleet
        customer = {"customer": "acme", "adapters": ["acme_v3"], "api_keys": [f"sha256:{'0' * 64}"]}
        defaults = {"on_broken_stream": "error", "fallback": [{"static": "later"}]}
        (folder / "fleet.yaml").write_text(json.dumps({"fleets": {"main": fleet}}))
        (folder / "defaults.yaml").write_text(json.dumps({"defaults": defaults}))
        (folder / "customers" / "acme.yaml").write_text(json.dumps(customer))
        return folder

    def run(self, folders: Sequence[Path], *options: str, base: Path | None = None) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `failsoft backend check`."""
        return self.command("backend", "check", *map(str, folders), "--base", str(base or self.base), *options)

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a whole command line."""
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = self._printed.readouterr()
        return int(ended.value.code or 0), out, err

    def check(self, *folders: Path, options: Sequence[str] = (), base: Path | None = None) -> Verdict:
        """The same with --json."""
        code, out, err = self.run(folders, "--json", *options, base=base)
        assert code in {0, 1}, err
        return Verdict(code, json.loads(out))
