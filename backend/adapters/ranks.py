"""The rank that the configuration claims against the one that the tensors have, which vLLM does not compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from backend.adapters.finding import Finding, error, where
from backend.adapters.lora_config import LoraConfig
from backend.adapters.tensors import Weights
from gateway.policy.models import MAX_LORA_RANKS

_EXPORT: Final = "Export it again from the checkpoint of training, configuration and weights together"


def check_ranks(config: LoraConfig, weights: Weights) -> Iterator[Finding]:
    """The export mistakes, each by name, one finding for all modules that share it."""
    cut_b: list[str] = []
    cut_a: list[str] = []
    low: list[str] = []
    high: list[str] = []
    for module, pair in weights.pairs.items():
        of_a, of_b = pair.ranks
        claimed = config.rank_of(module)
        if of_a != of_b:
            (cut_b if of_b < of_a else cut_a).append(module)
        elif of_a != claimed:
            (low if claimed < of_a else high).append(module)
    if cut_b:
        of_a, of_b = weights.pairs[cut_b[0]].ranks
        message = f"lora_A has rank {of_a} and lora_B only {of_b} {where(cut_b)}: B was cut"
        yield error("rank-mismatch-b", message, f"{_EXPORT}; vLLM would load this and answer nonsense.", cut_b)
    if cut_a:
        of_a, of_b = weights.pairs[cut_a[0]].ranks
        message = f"lora_B has rank {of_b} and lora_A only {of_a} {where(cut_a)}: A was cut"
        yield error("rank-mismatch-a", message, f"{_EXPORT}; vLLM would load this and answer nonsense.", cut_a)
    if low:
        of_a, claimed = weights.pairs[low[0]].ranks[0], config.rank_of(low[0])
        message = (
            f"adapter_config.json says rank {claimed} and the tensors have {of_a} {where(low)}: the configuration is "
            f"not theirs, and vLLM would scale by {config.scaling_in_words(low[0])}"
        )
        yield error("rank-mismatch-config", message, f"{_EXPORT}, or set r to {of_a} if training had that.", low)
    if high:
        of_a, claimed = weights.pairs[high[0]].ranks[0], config.rank_of(high[0])
        message = (
            f"the tensors have rank {of_a} and adapter_config.json says {claimed} {where(high)}: they were cut after "
            "training, or the configuration is not theirs"
        )
        yield error("rank-mismatch-tensors", message, f"{_EXPORT}; vLLM would load this and answer nonsense.", high)


def check_against_limit(config: LoraConfig, weights: Weights | None, max_lora_rank: int | None) -> Iterator[Finding]:
    """What vLLM refuses with a 500: a rank past the boxes' ``max_lora_rank``, or past what that can be set to."""
    limit = max_lora_rank or MAX_LORA_RANKS[-1]
    claimed = max(config.rank, *config.rank_pattern.values(), 0)
    held = max((rank for pair in weights.pairs.values() for rank in pair.ranks), default=0) if weights else 0
    if max(claimed, held) > limit:
        rank = max(claimed, held)
        wider = next((allowed for allowed in MAX_LORA_RANKS if allowed >= rank), None)
        yield error(
            "rank-above-max",
            f"rank {rank} is above the fleet's max_lora_rank of {limit}: vLLM refuses to load it"
            if max_lora_rank
            else f"rank {rank} is above {limit}, the most that vLLM's --max-lora-rank takes",
            f"Train with rank {limit} or less"
            + (f", or raise max_lora_rank to {wider} (every slot grows with it)." if wider else "."),
        )
