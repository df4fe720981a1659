"""One request inside of the engine, and how much of it is computed."""

from __future__ import annotations

from typing import Final

KV_BLOCK_TOKENS: Final = 16
"""Tokens in a block of the KV cache: vLLM's size on a GPU."""


class Sequence:
    """Counts of tokens and of KV cache blocks; the scheduler moves them on."""

    __slots__ = ("adapter", "admitted", "blocks", "computed", "deferred", "id", "left", "running", "told", "total")

    def __init__(self, id: str, adapter: str | None, prompt_tokens: int, output_tokens: int) -> None:
        self.id = id
        self.adapter = adapter
        self.total = prompt_tokens
        """Tokens that are known: the prompt, and what was generated."""
        self.computed = 0
        """Those of them that are in the KV cache."""
        self.left = output_tokens
        """Tokens still to generate."""
        self.blocks = 0
        self.running = False
        self.admitted = False
        """It has run before."""
        self.told = False
        """It has its first token."""
        self.deferred = False
        """It waits, and was skipped for want of a LoRA slot."""


def blocks_of(tokens: int) -> int:
    """Blocks of the KV cache that so many tokens take."""
    return -(-tokens // KV_BLOCK_TOKENS)
