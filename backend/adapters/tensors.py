"""An adapter's tensors, told apart as vLLM does: pairs of A and B by module, and what it cannot or will not load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from backend.adapters.finding import Finding, error, listed, warning, where
from backend.adapters.name_pattern import LONGEST_NAME

DTYPES: Final = {"F32": 4, "F16": 2, "BF16": 2}
"""The number formats that are understood, with their size in bytes."""

Kind = Literal["A", "B"]

_PREFIX: Final = "base_model.model."
_EMBEDDINGS_KEPT: Final = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
_ENDINGS: Final[dict[str, tuple[Kind, bool]]] = {
    ".lora_A.weight": ("A", False),
    ".lora_B.weight": ("B", False),
    ".lora_embedding_A": ("A", True),
    ".lora_embedding_B": ("B", True),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file. ``largest`` is the largest absolute value; NaN or infinity where there is one."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    largest: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A (rank × inputs) and B (outputs × rank) of one module."""

    module: str
    a: Tensor
    b: Tensor
    embedding: bool = False

    @property
    def ranks(self) -> tuple[int, int]:
        """The rank that A has, and the one that B has."""
        return self.a.shape[0], self.b.shape[1]

    @property
    def features(self) -> tuple[int, int]:
        """(inputs, outputs)."""
        return self.a.shape[1], self.b.shape[0]


@dataclass(frozen=True, slots=True)
class Weights:
    """All of a file. ``pairs`` by module, in the file's order; ``digest`` of all content in hex, ``size`` in bytes."""

    size: int
    digest: str
    tensors: tuple[Tensor, ...]
    pairs: dict[str, Pair] = field(default_factory=dict)


def sort_out(size: int, digest: str, tensors: Iterable[Tensor]) -> tuple[Weights, list[Finding]]:
    """Find the pairs; whatever belongs to none is a finding."""
    tensors = tuple(tensors)
    halves: dict[str, dict[Kind, Tensor]] = {}
    embeddings, flat, unknown, magnitudes, kept = set(), [], [], [], []
    for tensor in tensors:
        ending = next((end for end in _ENDINGS if tensor.name.endswith(end)), None)
        module = tensor.name.removesuffix(ending or "").removeprefix(_PREFIX)
        if ending is not None and len(module) <= LONGEST_NAME:
            kind, is_embedding = _ENDINGS[ending]
            if len(tensor.shape) != 2 or 0 in tensor.shape:
                flat.append(tensor.name)
                continue
            halves.setdefault(module, {})[kind] = tensor
            if is_embedding:
                embeddings.add(module)
        elif "lora_magnitude_vector" in tensor.name:
            magnitudes.append(tensor.name)
        elif tensor.name.endswith(_EMBEDDINGS_KEPT):
            kept.append(tensor.name)
        else:
            unknown.append(tensor.name)
    pairs = {
        module: Pair(module, found["A"], found["B"], module in embeddings)
        for module, found in halves.items()
        if len(found) == 2
    }
    findings = list(_complaints(flat, unknown, magnitudes, kept))
    flat_modules = {name.removeprefix(_PREFIX) for name in flat}
    single = [
        m for m, found in halves.items() if len(found) < 2 and not any(f.startswith(f"{m}.") for f in flat_modules)
    ]
    if single:
        message = f"only one of lora_A and lora_B is there {where(single)}"
        findings.append(
            error("pair-incomplete", message, "Export the adapter again: half a pair has no effect.", single)
        )
    if not pairs and not findings:
        findings.append(
            error("no-tensors", "adapter_model.safetensors holds no LoRA tensors", "Export the adapter again.")
        )
    return Weights(size, digest, tensors, pairs), findings


def _complaints(flat: list[str], unknown: list[str], magnitudes: list[str], kept: list[str]) -> Iterable[Finding]:
    if flat:
        message = f"no matrix, or an empty one: {listed(flat)}"
        yield error("shape-mismatch", message, "Export the adapter again.", flat)
    if magnitudes:
        message = f"it holds magnitude vectors of DoRA, which vLLM does not load: {listed(magnitudes)}"
        yield error("dora", message, "Train it as plain LoRA, or merge it into a base of its own.", magnitudes)
    if unknown:
        message = f"vLLM does not load {listed(unknown)} as LoRA"
        yield error("tensor-unknown", message, "Save only lora_A and lora_B: train no other weights.", unknown)
    if kept:
        message = f"the base's embeddings were saved along ({listed(kept)}); vLLM passes them over for the base's own"
        remedy = "If training changed them, it needs a base of its own; else save with save_embedding_layers=False."
        yield warning("embeddings-saved", message, remedy, kept)
