"""What an adapter takes on a box, and how much of its slot is padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backend.adapters.base_model import BaseModel
from backend.adapters.finding import Finding, info, warning
from backend.adapters.tensors import DTYPES, Weights
from gateway.policy.models import MAX_LORA_RANKS

_WASTEFUL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Footprint:
    """``rank`` is the largest of all modules. Bytes: as loaded, and of the slot's part for the same modules.

    ``slot_bytes`` and ``padding`` (0 to 1) are None where the fleet's ``max_lora_rank`` is not known.
    """

    rank: int
    parameters: int
    loaded_bytes: int
    slot_bytes: int | None
    padding: float | None


def footprint(weights: Weights, base: BaseModel, max_lora_rank: int | None) -> Footprint:
    """By the shapes alone; vLLM loads into the base's format."""
    pairs = weights.pairs.values()
    rank = max((max(pair.ranks) for pair in pairs), default=0)
    parameters = sum(
        rank_a * pair.features[0] + rank_b * pair.features[1] for pair in pairs for rank_a, rank_b in [pair.ranks]
    )
    stored = weights.tensors[0].dtype if weights.tensors else "F16"
    width = DTYPES[base.dtype or stored]
    features = sum(sum(pair.features) for pair in pairs)
    slot = features * max_lora_rank if max_lora_rank else None
    return Footprint(
        rank=rank,
        parameters=parameters,
        loaded_bytes=parameters * width,
        slot_bytes=slot * width if slot is not None else None,
        padding=max(0.0, 1 - parameters / slot) if slot else None,
    )


def check_footprint(held: Footprint, max_lora_rank: int | None) -> Iterator[Finding]:
    """Padding under the fleet's rank, and ranks that no ``max_lora_rank`` fits exactly."""
    if held.padding is not None and held.padding > 0 and max_lora_rank:
        say = warning if held.padding > _WASTEFUL else info
        yield say(
            "padding",
            f"{held.padding:.0%} of what it takes in a slot is padding: "
            f"rank {held.rank} under max_lora_rank {max_lora_rank}",
            "One rank for the whole fleet wastes nothing.",
        )
    elif max_lora_rank is None and 0 < held.rank < MAX_LORA_RANKS[-1] and held.rank not in MAX_LORA_RANKS:
        wider = next(rank for rank in MAX_LORA_RANKS if rank > held.rank)
        message = f"no max_lora_rank fits rank {held.rank}: a box pads it to {wider}"
        yield info("rank-padded", message, f"Train with one of {', '.join(map(str, MAX_LORA_RANKS))}.")
