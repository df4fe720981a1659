"""The base model as an adapter has to fit it: its names, its revision, and the shape of each of its linear layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backend.adapters.vocabulary import Tokenizer

MAIN: Final = frozenset({"main", "master", "refs/heads/main"})
"""Revisions that say no more than none."""

_LAYER: Final = re.compile(r"model\.layers\.(\d{1,6})\.(.+)")
_DTYPES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_FAMILIES: Final = {  # by model_type; what a missing head_dim or number of key/value heads means differs
    "llama": "separate",
    "mistral": "separate",
    "qwen2": "separate",
    "qwen3": "separate",
    "gemma": "separate",
    "gemma2": "separate",
    "gemma3_text": "separate",
    "granite": "separate",
    "phi3": "fused",
}
_OWN_HEAD_DIM: Final = frozenset({"qwen3", "gemma", "gemma2", "gemma3_text"})
_ONE_KV_HEAD_A_HEAD: Final = frozenset({"llama", "granite", "phi3"})
_ADAPTS_EMBEDDINGS: Final = frozenset({"llama", "mistral", "qwen3", "granite", "phi3"})
"""Where vLLM's model has `embedding_modules`: elsewhere it refuses LoRA on embed_tokens and lm_head."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """``names``: last path components by which it is known. ``linears``: module within a layer to (inputs, outputs).

    ``linears`` is empty where the architecture is not known, and everything else is None where nothing says it.
    """

    names: tuple[str, ...]
    revision: str | None
    model_type: str
    dtype: str | None
    vocab_size: int | None
    hidden_size: int | None = None
    layers: int | None = None
    linears: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None

    @property
    def known(self) -> bool:
        """Whether shapes can be checked."""
        return bool(self.linears)

    def modules(self) -> list[str]:
        """Every linear layer's full name, in order; none where the architecture is not known."""
        return [f"model.layers.{layer}.{name}" for layer in range(self.layers or 0) for name in self.linears]

    def shape(self, module: str) -> tuple[int, int] | None:
        """(inputs, outputs) of a module; None where the base has no such module."""
        if self.model_type in _ADAPTS_EMBEDDINGS and self.vocab_size is not None and self.hidden_size is not None:
            if module == "lm_head":
                return self.hidden_size, self.vocab_size
            if module == "model.embed_tokens":
                return self.vocab_size, self.hidden_size
        found = _LAYER.fullmatch(module)
        if found is None or self.layers is None or int(found[1]) >= self.layers:
            return None
        return self.linears.get(found[2])


def named(reference: str) -> tuple[str, str | None]:
    """A model's name, and its revision where the path says one.

    ``reference``: `org/name`, a folder, or a snapshot in Hugging Face's cache.
    """
    parts = [part for part in reference.strip().replace("\\", "/").split("/") if part not in {"", "."}]
    if len(parts) >= 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].split("--")[-1], parts[-1]
    return (parts[-1] if parts else ""), None


def describe(
    config: Mapping[str, Any],
    *,
    folders: Sequence[str],
    names: tuple[str, ...] = (),
    revision: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> BaseModel:
    """The base whose ``config.json`` this is, in ``folders``: absolute paths of one folder, before and after its links.

    ``names`` take the place of its own.
    """
    own = [*folders]
    if isinstance(origin := config.get("_name_or_path"), str) and origin.strip():
        own.append(origin)
    references = [named(reference) for reference in (names or own)]
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    model_type = text.get("model_type")
    model_type = model_type if isinstance(model_type, str) else "unknown"
    linears = {} if text is not config else _linears(config, model_type)
    dtype = text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return BaseModel(
        names=tuple(dict.fromkeys(name for name, _ in references if name)),
        revision=revision or next((found for _, found in map(named, folders) if found), None),
        model_type=model_type,
        dtype=_DTYPES.get(str(dtype).removeprefix("torch.")),
        vocab_size=_count(text, "vocab_size"),
        hidden_size=_count(text, "hidden_size"),
        layers=_count(text, "num_hidden_layers"),
        linears=linears,
        tokenizer=tokenizer,
    )


def _linears(config: Mapping[str, Any], model_type: str) -> dict[str, tuple[int, int]]:
    hidden, inner = _count(config, "hidden_size"), _count(config, "intermediate_size")
    heads, layers = _count(config, "num_attention_heads"), _count(config, "num_hidden_layers")
    kv_heads, head_dim = _count(config, "num_key_value_heads"), _count(config, "head_dim")
    if kv_heads is None and model_type in _ONE_KV_HEAD_A_HEAD:
        kv_heads = heads
    if head_dim is None and hidden and heads and model_type not in _OWN_HEAD_DIM:
        head_dim = hidden // heads
    layout = _FAMILIES.get(model_type)
    if layout is None or not (hidden and inner and heads and kv_heads and head_dim and layers):
        return {}
    queries, keys = heads * head_dim, kv_heads * head_dim
    written = {"self_attn.o_proj": (queries, hidden), "mlp.down_proj": (inner, hidden)}
    if layout == "fused":
        read = {"self_attn.qkv_proj": (hidden, queries + 2 * keys), "mlp.gate_up_proj": (hidden, 2 * inner)}
    else:
        read = {
            "self_attn.q_proj": (hidden, queries),
            "self_attn.k_proj": (hidden, keys),
            "self_attn.v_proj": (hidden, keys),
            "mlp.gate_proj": (hidden, inner),
            "mlp.up_proj": (hidden, inner),
        }
    return read | written


def _count(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40 else None
