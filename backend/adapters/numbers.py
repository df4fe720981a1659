"""The numbers in the tensors: NaN, nothing but zeros, and the format that they are kept in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from backend.adapters.base_model import BaseModel
from backend.adapters.finding import Finding, error, warning, where
from backend.adapters.tensors import Weights

_LARGEST_F16: Final = 65_504.0


def check_numbers(weights: Weights, base: BaseModel) -> Iterator[Finding]:
    """What no training that went well leaves behind."""
    broken = [tensor.name for tensor in weights.tensors if not math.isfinite(tensor.largest)]
    if broken:
        message = f"there is NaN or infinity {where(broken)}: every answer would be garbage"
        yield error(
            "not-finite", message, "Training diverged or the file is damaged: train or export it again.", broken
        )
    if base.dtype == "F16":
        large = [t.name for t in weights.tensors if _LARGEST_F16 < t.largest < math.inf]
        if large:
            message = f"a number is past what the base's float16 holds {where(large)}, and becomes infinity on a box"
            yield error("overflow", message, "Serve the base in bfloat16, or train again.", large)
    dead = [module for module, pair in weights.pairs.items() if pair.b.largest == 0 or pair.a.largest == 0]
    if weights.pairs and all(pair.b.largest == 0 for pair in weights.pairs.values()):
        message = "every lora_B is zero: it was saved before training, and answers exactly as the base does"
        yield error("lora-b-zero", message, "Export it from a checkpoint that was trained.")
    elif dead:
        message = f"the tensors are all zero {where(dead)}, so nothing was learned there"
        yield warning("module-zero", message, "Make sure that training reached these modules.", dead)
    yield from _check_dtype(weights, base)


def _check_dtype(weights: Weights, base: BaseModel) -> Iterator[Finding]:
    kept = sorted({tensor.dtype for tensor in weights.tensors})
    if len(kept) > 1:
        message = f"the tensors are kept in {' and '.join(kept)}: some of them were changed after training"
        yield warning("dtype-mixed", message, "Save all in the base's format.")
    elif kept and base.dtype is not None and kept[0] != base.dtype:
        message = f"the tensors are kept in {kept[0]} and the base in {base.dtype}: a box rounds them as it loads them"
        yield warning("dtype-differs", message, "Save them in the base's format, and run the evaluation on that.")
