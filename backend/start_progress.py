"""How far a vLLM server has come with its start, read off what it prints. Pure: lines and a clock in.

The lines are those of vLLM 0.6.3 to 0.32, on GPUs and on CPUs. A release that words them otherwise makes a phase appear
late or not at all; that a server is ready is not read off its log but found by asking it for a token.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final


class Phase(IntEnum):
    """What a start goes through, in this order; a phase may be passed over."""

    STARTING = 0
    WEIGHTS = 1
    PROFILING = 2
    WARM_UP = 3
    SERVING = 4
    READY = 5


TITLES: Final = {
    Phase.STARTING: "imports, configuration",
    Phase.WEIGHTS: "weights",
    Phase.PROFILING: "memory profile, KV cache",
    Phase.WARM_UP: "warm-up, graph capture",
    Phase.SERVING: "adapters, HTTP server, first token",
    Phase.READY: "ready",
}

_MARKS: Final = tuple(
    (re.compile(pattern), phase)
    for pattern, phase in (
        (r"Starting to load model|Loading \S+ checkpoint shards", Phase.WEIGHTS),
        (r"Model loading took|Loading model weights took|Loading weights took", Phase.PROFILING),
        (r"Available KV cache memory|KV cache size:|# GPU blocks:|torch\.compile|Dynamo bytecode", Phase.PROFILING),
        (r"Capturing (the model for )?CUDA graph|warming up model|Graph capturing", Phase.WARM_UP),
        (r"init engine .* took|init engine took|Loaded new LoRA adapter|Starting vLLM", Phase.SERVING),
        (r"Application startup complete", Phase.SERVING),
    )
)
_SHARDS: Final = re.compile(r"checkpoint shards:.*?(\d+)/(\d+)")
_CACHE: Final = re.compile(r"KV cache size: ([\d,]+) tokens")
_BLOCKS: Final = re.compile(r"# GPU blocks: (\d+)")
_CAPTURED: Final = re.compile(r"Capturing .*?(\d+)%")
_ADAPTER: Final = re.compile(r"Loaded new LoRA adapter")


class StartProgress:
    """One start. ``adapters``: how many are registered in it. Times in seconds, of any one clock."""

    def __init__(self, adapters: int, now_s: float) -> None:
        self.phase = Phase.STARTING
        self.details: dict[Phase, str] = {}
        self._adapters = adapters
        self._loaded = 0
        self._entered = {Phase.STARTING: now_s}

    def feed(self, line: str, now_s: float) -> bool:
        """Take in one line of the log; whether it brought news. A phase that is over does not come back."""
        before = (self.phase, dict(self.details))
        self._note(line)
        for mark, phase in _MARKS:
            if phase > self.phase and mark.search(line) is not None:
                self._enter(phase, now_s)
        return before != (self.phase, self.details)

    def answered(self, now_s: float) -> None:
        """A token came."""
        self._enter(Phase.READY, now_s)

    def seconds_in(self, phase: Phase, now_s: float) -> float | None:
        """How long the phase took, or has taken so far; None where it was not seen."""
        began = self._entered.get(phase)
        if began is None:
            return None
        later = [entered for other, entered in self._entered.items() if other > phase]
        return min(later, default=now_s) - began

    def seconds(self, now_s: float) -> float:
        """How long the start took, or has taken so far."""
        return self._entered.get(Phase.READY, now_s) - self._entered[Phase.STARTING]

    def _enter(self, phase: Phase, now_s: float) -> None:
        self.phase = phase
        self._entered.setdefault(phase, now_s)

    def _note(self, line: str) -> None:
        if found := _SHARDS.search(line):
            self.details[Phase.WEIGHTS] = f"{found[1]} of {found[2]} files"
        elif found := _CACHE.search(line):
            self.details[Phase.PROFILING] = f"room for {found[1]} tokens"
        elif found := _BLOCKS.search(line):
            self.details[Phase.PROFILING] = f"room for {found[1]} blocks"
        elif found := _CAPTURED.search(line):
            self.details[Phase.WARM_UP] = f"{found[1]} %"
        elif _ADAPTER.search(line) is not None and self._loaded < self._adapters:
            self._loaded += 1
            self.details[Phase.SERVING] = f"{self._loaded} of {self._adapters} adapters"
