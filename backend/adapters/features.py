"""What PEFT can train and vLLM 0.32 does not serve: some of it vLLM refuses, some it leaves out in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from backend.adapters.finding import Finding, error, shown

_SERVED_WHOLE: Final = frozenset({"classifier", "score"})
_PLAIN_STARTS: Final = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_PLAIN: Final = "Train it as plain LoRA."
_UNSERVED: Final = {
    "use_dora": ("dora", "uses DoRA, which vLLM does not serve"),
    "lora_bias": ("bias", "trains a bias of lora_B (lora_bias), which vLLM does not serve"),
    "alora_invocation_tokens": ("feature-unserved", "is an activated LoRA (aLoRA), which vLLM does not serve"),
    "layer_replication": ("feature-unserved", "replicates layers of the base, which vLLM does not"),
    "use_bdlora": ("feature-unserved", "is a block-diagonal LoRA, which vLLM does not serve"),
    "use_qalora": ("feature-unserved", "uses QA-LoRA, which vLLM does not serve"),
    "arrow_config": ("feature-unserved", "routes between several LoRAs (Arrow), which vLLM does not"),
    "kasa_config": ("feature-unserved", "uses KaSA, which vLLM does not serve"),
    "trainable_token_indices": ("feature-unserved", "trains single token embeddings, which vLLM does not serve"),
}


def check_features(raw: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything in a configuration that a box would refuse, or answer without."""
    kind = raw.get("peft_type")
    if kind is not None and kind != "LORA":
        yield error("not-lora", f"it is of PEFT type {shown(kind)}, and vLLM serves only LORA", _PLAIN)
    for key, (code, what) in _UNSERVED.items():
        if raw.get(key):
            yield error(code, f"it {what}", _PLAIN)
    if (bias := raw.get("bias", "none")) != "none":
        message = f"it trains biases of the base (bias: {shown(bias)}), which vLLM does not serve"
        yield error("bias", message, 'Train with bias: "none".')
    if saved := raw.get("modules_to_save"):
        modules = saved if isinstance(saved, list) else [saved]
        unserved = [module for module in modules if module not in _SERVED_WHOLE]
        if unserved:
            names = ", ".join(map(shown, unserved))
            message = f"it holds whole layers of its own (modules_to_save: {names}), which vLLM does not serve"
            yield error("modules-to-save", message, "Train without, or merge it into a base of its own.")
    start = raw.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        message = (
            f"training began by changing the base's weights (init_lora_weights: {shown(start)}), and boxes have the old"
        )
        remedy = "Save it with path_initial_model_for_weight_conversion, which makes a plain LoRA of it."
        yield error("base-weights-changed", message, remedy)
