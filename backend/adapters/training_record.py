"""``training_record.json`` beside an adapter: what training had, written by the trainer and touched by no export.

It is PEFT's configuration as it was during training: an object with `r` and `lora_alpha`, and as many of `use_rslora`,
`rank_pattern`, `alpha_pattern`, `target_modules`, `base_model_name_or_path` and `revision` as there were. Other keys
(steps, loss, versions) are free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from backend.adapters.base_model import named
from backend.adapters.finding import Finding, error, shown, where
from backend.adapters.lora_config import LoraConfig
from backend.adapters.name_pattern import PatternRefused, matches_whole
from backend.adapters.name_pattern import named as is_named
from backend.adapters.scaling import TOLERANCE
from backend.adapters.tensors import Weights

FILE: Final = "training_record.json"
_EXPORT: Final = "Export it again from the checkpoint of training; if the record is another run's, replace it."


def check_record(record: LoraConfig, config: LoraConfig, weights: Weights) -> Iterator[Finding]:
    """Whatever is not as it was in training."""
    scaled = [
        m for m in weights.pairs if not math.isclose(config.scaling_of(m), record.scaling_of(m), rel_tol=TOLERANCE)
    ]
    if scaled:
        yield error(
            "scaling-differs-from-record",
            f"it scales by {config.scaling_in_words(scaled[0])} {where(scaled)}, and training by "
            f"{record.scaling_in_words(scaled[0])}",
            _EXPORT,
            scaled,
        )
    ranked = [m for m, pair in weights.pairs.items() if pair.ranks != (record.rank_of(m), record.rank_of(m))]
    if ranked:
        of_a, of_b = weights.pairs[ranked[0]].ranks
        ranks = str(of_a) if of_a == of_b else f"{of_a} and {of_b}"
        yield error(
            "rank-differs-from-record",
            f"the tensors have rank {ranks} {where(ranked)}, and training had {record.rank_of(ranked[0])}",
            _EXPORT,
            ranked,
        )
    yield from _check_targets(record, weights)
    if record.base_name and config.base_name:
        trained, claimed = named(record.base_name)[0], named(config.base_name)[0]
        if trained.casefold() != claimed.casefold():
            yield error(
                "base-differs-from-record",
                f"adapter_config.json names {shown(claimed)} as its base, and training ran on {shown(trained)}",
                "Serve it on the base of its training, and name that.",
            )


def _check_targets(record: LoraConfig, weights: Weights) -> Iterator[Finding]:
    targets = record.target_modules
    if targets is None:
        return
    try:
        foreign = [
            m
            for m in weights.pairs
            if not (matches_whole(targets, m) if isinstance(targets, str) else is_named(targets, m))
        ]
    except PatternRefused:
        return  # PEFT's "all-linear", or too costly to run: ranks and shapes are compared anyhow
    gone = [] if isinstance(targets, str) else [t for t in targets if not any(is_named((t,), m) for m in weights.pairs)]
    if isinstance(targets, str) and len(foreign) == len(weights.pairs):
        return
    if foreign:
        message = f"there are tensors that training did not have {where(foreign)}"
        yield error("targets-differ-from-record", message, _EXPORT, foreign)
    if gone:
        message = f"training adapted {', '.join(map(shown, gone))}, and no tensors are there for it"
        yield error("targets-differ-from-record", message, _EXPORT)
