"""What one run of the planner simulates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.simulator.engine_knobs import ModelKnobs
from backend.traffic.arrival import Arrival
from backend.traffic.mix import TrafficMix
from gateway.policy.compiled import CompiledPolicy


@dataclass(frozen=True, slots=True, order=True)
class Option:
    """So many boxes with so many LoRA slots each (``--max-loras``)."""

    boxes: int
    slots: int

    def __str__(self) -> str:
        return f"{self.boxes} box{'es' if self.boxes > 1 else ''} × {self.slots} slots"


@dataclass(frozen=True, slots=True)
class ProviderPace:
    """How fast every hosted provider answers: seconds to the first token, and between two."""

    ttft_s: float = 0.6
    itl_s: float = 0.01


@dataclass(frozen=True, slots=True)
class Scenario:
    """Traffic, policies, and what happens. Times in seconds from the start of the traffic.

    What is asked before ``warm_up_s`` is not counted. ``dies_at_s``: when the busiest box dies, for good; None: never.
    ``mix``: what the arrivals were drawn from; None of a recorded trace. ``source``: where they come from, in words.
    """

    name: str
    arrivals: Sequence[Arrival] = field(repr=False)
    length_s: float
    warm_up_s: float
    policy: CompiledPolicy = field(repr=False)
    knobs: ModelKnobs = field(default_factory=ModelKnobs)
    provider: ProviderPace = field(default_factory=ProviderPace)
    dies_at_s: float | None = None
    seed: int = 1
    mix: TrafficMix | None = None
    source: str = ""

    @property
    def counted_s(self) -> float:
        """How long requests are counted."""
        return self.length_s - self.warm_up_s

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return max((one.prompt_tokens + one.output_tokens for one in self.arrivals), default=0)

    @property
    def longest_answer(self) -> int:
        """Tokens of it."""
        return max((one.output_tokens for one in self.arrivals), default=1)
