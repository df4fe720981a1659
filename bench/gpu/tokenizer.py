"""A tokenizer of any size without a corpus, as `tokenizer.json`: nearly every token is text that can be seen.

Random weights draw every token alike. With a small tokenizer under a large model most answers would be empty, and the
first token could not be told from silence. So the vocabulary is filled up with a blank and letters in every order; the
words of the load test's prompts are single tokens, as they are of Llama's own tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from string import ascii_lowercase
from typing import Any, Final

from backend.loadtest.question import WORDS

BEGIN: Final = "<|begin_of_text|>"
TURN: Final = "<|eot_id|>"
PAD: Final = "<|end_of_text|>"
HEADERS: Final = ("<|start_header_id|>", "<|end_header_id|>")
SPECIAL: Final = (*HEADERS, PAD, TURN, BEGIN)
"""The last ids of the vocabulary, in this order: ``shape.Shape.config`` counts on it."""
BLANK: Final = "Ġ"
"""How byte-level BPE writes a blank."""

CHAT_TEMPLATE: Final = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}"
    "{%- if message.content is string %}{{ message.content }}"
    "{%- else %}{%- for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}{%- endif %}"
    "{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes (`bytes_to_unicode` of GPT-2's encoder.py)."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) for byte in seen] + [chr(256 + n) for n in range(len(unseen))]


def merges(count: int) -> list[tuple[str, str]]:
    """So many pieces with the letter that each grows by, shorter before longer. Raises ValueError for too few."""
    found: dict[str, tuple[str, str]] = {}
    for text in sorted({BLANK + word[:end] for word in WORDS for end in range(1, len(word) + 1)}, key=len):
        found[text] = (text[:-1], text[-1])
    if count < len(found):
        raise ValueError(f"a vocabulary with {count} pieces is too small for the words of the prompts ({len(found)})")
    for text in _strings():
        if len(found) == count:
            break
        found.setdefault(text, (text[:-1], text[-1]))
    return list(found.values())


def _strings() -> Iterator[str]:
    length = 1
    while True:
        yield from (BLANK + "".join(letters) for letters in product(ascii_lowercase, repeat=length))
        length += 1


def tokenizer(vocabulary: int) -> dict[str, Any]:
    """The content of ``tokenizer.json`` with exactly so many tokens."""
    alphabet = byte_alphabet()
    pairs = merges(vocabulary - len(alphabet) - len(SPECIAL))
    pieces = [*alphabet, *(a + b for a, b in pairs)]
    first = len(pieces)
    ids = {token: first + n for n, token in enumerate(SPECIAL)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token, number in ids.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BEGIN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [ids[BEGIN]], "tokens": [BEGIN]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {**{piece: number for number, piece in enumerate(pieces)}, **ids},
            "merges": [f"{a} {b}" for a, b in pairs],  # a form that every release of tokenizers reads
        },
    }


def settings(longest: int) -> dict[str, Any]:
    """The content of ``tokenizer_config.json``. ``longest``: context in tokens."""
    return {
        "bos_token": BEGIN,
        "eos_token": TURN,
        "pad_token": PAD,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": longest,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
