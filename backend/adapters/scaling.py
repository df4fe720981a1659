"""lora_alpha over r: vLLM multiplies with whatever it finds, and every wrong factor that was tried answers nonsense."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from backend.adapters.finding import Finding, error, warning, where
from backend.adapters.lora_config import LoraConfig
from backend.adapters.tensors import Weights

TOLERANCE: Final = 1e-4  # relative; a file may hold 0.3333
_USUAL: Final = (0.1, 32.0)  # α/r: 32/256 and 32/1 have been published, α = 1 with r = 16 is a mistake


def scalings(config: LoraConfig, weights: Weights | None) -> tuple[float, ...]:
    """Every factor that occurs in the adapter, ascending: one, unless a pattern sets others."""
    modules = list(weights.pairs) if weights is not None else []
    return tuple(sorted({config.scaling_of(module) for module in modules or ["*"]}))


def same(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two adapters scale alike."""
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=TOLERANCE) for a, b in zip(one, other, strict=True)
    )


def check_scaling(config: LoraConfig, weights: Weights, expected: float | None) -> Iterator[Finding]:
    """What can be said of one adapter by itself. ``expected``: the factor that every module has to have."""
    dead = [module for module in weights.pairs if config.alpha_of(module) <= 0]
    if dead or config.alpha <= 0:
        yield error(
            "alpha-not-positive",
            f"lora_alpha is {config.alpha_of(dead[0]) if dead else config.alpha:g}: vLLM would load it and answer as "
            "the base does, or worse",
            "Set lora_alpha to what training had.",
            dead,
        )
        return
    if expected is not None:
        other = [m for m in weights.pairs if not math.isclose(config.scaling_of(m), expected, rel_tol=TOLERANCE)]
        if other:
            yield error(
                "scaling-unexpected",
                f"it scales by {config.scaling_in_words(other[0])} {where(other)}, and {expected:g} was asked for",
                "Set lora_alpha, r and use_rslora to what training had.",
                other,
            )
        return
    odd = [m for m in weights.pairs if not _USUAL[0] <= config.scaling_of(m) <= _USUAL[1]]
    if odd:
        yield warning(
            "scaling-unusual",
            f"it scales by {config.scaling_in_words(odd[0])} {where(odd)}; {_USUAL[0]:g} to {_USUAL[1]:g} is usual",
            "Make sure that lora_alpha is what training had.",
            odd,
        )
