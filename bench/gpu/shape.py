"""The models that are served: their sizes, and what their adapters take. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

BYTES: Final = 2
"""Of a bfloat16, in which weights and adapters are stored."""

Features = Mapping[str, tuple[int, int]]
"""Inputs and outputs of a layer's linear modules, by name."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama. ``target_modules``: of the adapters. ``context``: ``--max-model-len``. Lengths in tokens.

    ``input_tokens``, ``output_tokens``: of the load's requests, where nothing else is asked for.
    """

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    longest: int
    target_modules: tuple[str, ...]
    max_loras: int
    max_cpu_loras: int
    adapters: int
    input_tokens: int
    output_tokens: int
    rope: Mapping[str, Any] = field(default_factory=dict)

    @property
    def features(self) -> Features:
        """Every linear module that vLLM gives a place in each slot."""
        kv = self.hidden * self.kv_heads // self.heads
        return {
            "q_proj": (self.hidden, self.hidden),
            "k_proj": (self.hidden, kv),
            "v_proj": (self.hidden, kv),
            "o_proj": (self.hidden, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def parameters(self) -> int:
        """Of the base, embeddings and output layer apart, as Llama 3.1 8B has them."""
        linear = sum(inputs * outputs for inputs, outputs in self.features.values())
        return self.layers * (linear + 2 * self.hidden) + self.hidden + 2 * self.vocabulary * self.hidden

    @property
    def base_bytes(self) -> int:
        """Of the base in bfloat16."""
        return self.parameters * BYTES

    def adapter_bytes(self, rank: int) -> int:
        """Of one adapter's tensors."""
        return self.layers * rank * sum(sum(self.features[module]) for module in self.target_modules) * BYTES

    def slot_bytes(self, max_rank: int) -> int:
        """Of one slot: A and B of every module that could be adapted, whatever the adapters target.

        vLLM's ``create_lora_weights``: the linear modules of each layer, the embedding and the output layer.
        """
        linear = self.layers * sum(sum(pair) for pair in self.features.values())
        return max_rank * (linear + 2 * (self.vocabulary + self.hidden)) * BYTES

    def config(self) -> dict[str, Any]:
        """``config.json``, in the keys that transformers 4 and 5 both read."""
        return {
            "_name_or_path": self.name,
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": self.vocabulary - 1,
            "eos_token_id": self.vocabulary - 2,
            "pad_token_id": self.vocabulary - 3,
            "head_dim": self.hidden // self.heads,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.longest,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": self.vocabulary,
            **self.rope,
        }


LLAMA_3_1_8B: Final = Shape(
    name="llama-3.1-8b",
    layers=32,
    hidden=4096,
    intermediate=14336,
    heads=32,
    kv_heads=8,
    vocabulary=128256,
    context=8192,
    longest=131072,
    # 43 MB at rank 16, the nearest to the 42 of the field report that whole modules come to: all of them are 84 MB.
    target_modules=("gate_proj", "up_proj", "v_proj"),
    max_loras=8,
    max_cpu_loras=64,
    adapters=40,
    input_tokens=256,
    output_tokens=256,
    rope={
        "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    },
)
"""https://huggingface.co/meta-llama/Llama-3.1-8B/blob/main/config.json, but for the ids of the special tokens."""

TINY: Final = Shape(
    name="tiny",
    layers=2,
    hidden=256,
    intermediate=768,
    heads=4,
    kv_heads=4,
    vocabulary=4096,
    context=1024,
    longest=2048,
    target_modules=("gate_proj", "up_proj", "v_proj"),
    max_loras=2,
    max_cpu_loras=64,
    adapters=6,
    input_tokens=32,
    output_tokens=32,
    rope={"rope_theta": 10000.0},
)
"""Shows on a CPU that all of it works; its figures say nothing of a GPU."""

SHAPES: Final = {shape.name: shape for shape in (LLAMA_3_1_8B, TINY)}
