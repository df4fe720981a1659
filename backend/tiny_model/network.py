"""The base model: a Llama of two layers with random weights, shaped so that its greedy answers are worth reading.

Random weights alone would end an answer at any moment and emit halves of UTF-8 characters. So one channel of the
residual stream is held constant (every embedding has the same value there, no layer writes to it), which makes its
column of the output matrix a bias per token: high for whole words, low for everything else. Answers are then word
salad of any length that the request allows, and differ from prompt to prompt.
"""

from __future__ import annotations

import math
from typing import Final

import torch  # type: ignore[import-not-found]
from transformers import (  # type: ignore[import-not-found]
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from backend.tiny_model.tokenizer import LONGEST_CONTEXT, words

NAME: Final = "failsoft-tiny-llama"
"""What the adapters' configuration names as their base."""
BIAS_CHANNEL: Final = 0
MOST_TOKENS: Final = 512
"""Where an answer ends whose request sets no `max_tokens`."""

_SEED: Final = 20_260_101
_HIDDEN: Final = 128
_HEADS: Final = 4  # of 32 channels each, the smallest head size that vLLM's CPU attention takes
_BIAS: Final = 12.0  # in standard deviations of the other channels of an embedding
_SPOKEN: Final = 1.0
_UNSPOKEN: Final = -60.0
_BLANK: Final = -90.0  # below the rest: where only a JSON grammar speaks, it must not go on with white space for ever
_WEIGHT_SCALE: Final = 2.5  # times 1/√hidden; at 1 the layers change too little for one word to lead to another
_LOGIT_SPREAD: Final = 6.0
_WORDS: Final = words()
_AGAINST_REPETITION: Final = 0.3  # how much of a token's own embedding is taken from its output row


def build_network(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The model in fp32, the same weights each time."""
    torch.manual_seed(_SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_HIDDEN,
        intermediate_size=3 * _HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=LONGEST_CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 300.0},
        initializer_range=_WEIGHT_SCALE / math.sqrt(_HIDDEN),
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).to(torch.float32).eval()
    model.name_or_path = config._name_or_path = NAME
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=MOST_TOKENS,
    )
    with torch.no_grad():
        _add_token_bias(model, tokenizer)
    return model


def _add_token_bias(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    embedding, output = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.normal_(std=1.0)
    embedding[:, BIAS_CHANNEL] = _BIAS
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[BIAS_CHANNEL] = 0
        layer.mlp.down_proj.weight[BIAS_CHANNEL] = 0
    output.normal_().sub_(_AGAINST_REPETITION * embedding).mul_(_LOGIT_SPREAD / math.sqrt(_HIDDEN))
    biases = [_bias(token) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    output[:, BIAS_CHANNEL] = torch.tensor(biases)


def _bias(token: str) -> float:
    """``token`` as byte-level BPE writes it: ``Ġ`` is a space, ``Ċ``, ``č`` and ``ĉ`` end lines and indent."""
    if token.startswith("Ġ") and token[1:] in _WORDS:
        return _SPOKEN
    return _UNSPOKEN if token.strip("ĠĊčĉ") else _BLANK
