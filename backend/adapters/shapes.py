"""Which modules the tensors are for, and whether the base has them in that shape.

vLLM drops tensors for a module that the model has not, and pads what is smaller than the model's, both in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from backend.adapters.base_model import BaseModel
from backend.adapters.finding import Finding, error, info, shown, warning, where
from backend.adapters.lora_config import LoraConfig
from backend.adapters.name_pattern import PatternRefused, matches_whole, named
from backend.adapters.tensors import Weights

_EXPORT: Final = "Export it again, from the checkpoint of training."
_NARROWING: Final = ("exclude_modules", "layers_to_transform", "target_parameters")


def check_shapes(config: LoraConfig, weights: Weights, base: BaseModel) -> Iterator[Finding]:
    """Modules and shapes against the base, then the tensors against `target_modules`."""
    if base.known:
        yield from _check_fit(weights, base)
    else:
        yield warning(
            "shapes-not-checked",
            "shapes were not checked: the base's config.json describes no architecture known here "
            f"({shown(base.model_type)})",
            "Ask a box for an answer with this adapter before customers do.",
        )
    yield from _check_targets(config, weights, base)


def _check_fit(weights: Weights, base: BaseModel) -> Iterator[Finding]:
    strange = [module for module in weights.pairs if base.shape(module) is None]
    if strange:
        yield error(
            "module-unknown",
            f"the base, {base.layers} layers of {base.model_type}, has nothing {where(strange)}: vLLM would refuse it, "
            "or leave those tensors out",
            "It was most likely trained on another base: serve it with that one.",
            strange,
        )
    due = {module: shape for module in weights.pairs if (shape := base.shape(module)) is not None}
    unfit = [module for module, shape in due.items() if weights.pairs[module].features != shape]
    if unfit:
        (inputs, outputs), (own_inputs, own_outputs) = weights.pairs[unfit[0]].features, due[unfit[0]]
        yield error(
            "shape-mismatch",
            f"the tensors are for {inputs} inputs and {outputs} outputs {where(unfit)}, and the base has "
            f"{own_inputs} and {own_outputs}",
            "It was most likely trained on another base: serve it with that one.",
            unfit,
        )


def _check_targets(config: LoraConfig, weights: Weights, base: BaseModel) -> Iterator[Finding]:
    targets = config.target_modules
    if targets is None:
        if "target_modules" not in config.raw:
            message = "adapter_config.json lacks target_modules, without which vLLM does not load it"
            yield error("config-invalid", message, "Export the adapter again with PEFT.")
        return
    if targets == "all-linear":
        return  # PEFT's word for all but the output layer; what shapes say is enough

    def is_target(module: str) -> bool:
        return matches_whole(targets, module) if isinstance(targets, str) else named(targets, module)

    try:
        extra = [module for module in weights.pairs if not is_target(module)]
        due = [module for module in base.modules() if is_target(module)]
    except PatternRefused as refused:
        yield info("targets-not-compared", f"target_modules was not compared with the tensors: it {refused}")
        return
    if extra:
        yield error(
            "module-untargeted",
            f"target_modules does not name what there are tensors for {where(extra)}: vLLM would apply them, "
            "PEFT would not",
            _EXPORT,
            extra,
        )
    lacking = [module for module in due if module not in weights.pairs]
    if lacking and not any(config.raw.get(key) for key in _NARROWING):
        yield error(
            "tensors-missing",
            f"target_modules names what there are no tensors for {where(lacking)}: part of the adapter is gone, or "
            "its base has fewer layers",
            _EXPORT,
            lacking,
        )
    if isinstance(targets, tuple) and base.known and not lacking:
        modules = [*base.modules(), *weights.pairs]
        nowhere = [target for target in targets if not any(named((target,), module) for module in modules)]
        if nowhere:
            yield warning(
                "target-unknown",
                f"target_modules names {', '.join(map(shown, nowhere))}, which the base has not",
                "It may have been trained on another base; if not, drop the name.",
            )
