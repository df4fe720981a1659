"""The engine that a command line asks for: one of fixed pace, or a modelled one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from backend.simulator.costs import Costs
from backend.simulator.engine import Engine, Pace
from backend.simulator.engine_model import EngineModel
from backend.simulator.modelled_engine import ModelledEngine
from gateway.clock import wall_s


class BadKnobs(ValueError):
    """Knobs that do not go together; the message says why."""


@dataclass(frozen=True, slots=True)
class ModelKnobs:
    """What only a modelled engine has; None is its default. Milliseconds where the name says so."""

    max_cpu_loras: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_tokens: int | None = None
    swap_ms: float | None = None
    disk_load_ms: float | None = None
    prefill_tokens_per_s: float | None = None
    decode_ms: float | None = None
    decode_ms_per_seq: float | None = None
    decode_ms_per_adapter: float | None = None

    @property
    def given(self) -> bool:
        """Whether any of them was asked for."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    def costs(self) -> Costs:
        """The default costs with what was asked for in their place. Raises BadKnobs."""
        in_ms = {
            "step_s": self.decode_ms,
            "per_sequence_s": self.decode_ms_per_seq,
            "per_adapter_s": self.decode_ms_per_adapter,
            "swap_s": self.swap_ms,
            "disk_load_s": self.disk_load_ms,
        }
        given = {name: ms / 1000 for name, ms in in_ms.items() if ms is not None}
        if self.prefill_tokens_per_s is not None:
            given["prefill_tokens_per_s"] = self.prefill_tokens_per_s
        try:
            return replace(Costs(), **given)
        except ValueError as error:
            raise BadKnobs(str(error)) from None

    def model(self, *, max_loras: int, longest: int) -> EngineModel:
        """An engine whose KV cache holds ``longest`` tokens at least. Raises BadKnobs."""
        wanted = {
            "max_cpu_loras": self.max_cpu_loras,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "kv_tokens": self.kv_cache_tokens,
        }
        try:
            given = {name: value for name, value in wanted.items() if value is not None}
            model = EngineModel(self.costs(), max_loras=max_loras, **given)
        except ValueError as error:
            raise BadKnobs(str(error)) from None
        if model.kv_tokens < longest:
            raise BadKnobs(f"the KV cache holds {model.kv_tokens} tokens, too few for a request of {longest}")
        return model


def make_engine(
    knobs: ModelKnobs,
    *,
    modelled: bool,
    base: str,
    adapters: Mapping[str, str],
    pace: Pace,
    max_loras: int,
    max_queued: int | None,
    max_model_len: int,
) -> Engine:
    """A modelled engine where ``modelled`` says so or any of ``knobs`` was given. Raises BadKnobs."""
    if not (modelled or knobs.given):
        return Engine(
            base=base,
            adapters=dict(adapters),
            pace=pace,
            max_loras=max_loras,
            max_queued=max_queued,
            clock=time.monotonic,
            max_model_len=max_model_len,
        )
    if pace.ttft_s or pace.itl_s:
        raise BadKnobs("a fixed pace (--ttft-ms, --itl-ms) and a modelled engine exclude each other")
    model = knobs.model(max_loras=max_loras, longest=max_model_len + pace.tokens + 1)
    return ModelledEngine(
        model,
        base=base,
        adapters=dict(adapters),
        pace=pace,
        max_queued=max_queued,
        clock=time.monotonic,
        max_model_len=max_model_len,
        wall=wall_s,
    )
