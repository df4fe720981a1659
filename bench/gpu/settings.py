"""What one run of the benchmark is, as far as its figures depend on it. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from bench.gpu.artefacts import names
from bench.gpu.shape import SHAPES, Shape

Section = Literal["load", "swap", "gateway", "disk", "base"]
Kind = Literal["shared", "small-pool", "base-alone"]
"""Servers: with LoRA and all adapters in the CPU pool; with a pool no larger than the slots; without LoRA."""

SECTIONS: Final[dict[Section, Kind]] = {
    "load": "shared",
    "swap": "shared",
    "gateway": "shared",
    "disk": "small-pool",
    "base": "base-alone",
}
"""What is measured, in this order, and on which servers."""

_OF_THE_LOAD: Final = ("requests_per_minute", "seconds", "warm_up", "input_tokens", "output_tokens", "zipf", "seed")
_OF_SINGLES: Final = ("singles", "single_tokens")


@dataclass(frozen=True, slots=True)
class Settings:
    """Lengths in tokens, times in seconds. ``singles``: single requests of each kind, one after the other.

    ``extra``: more of vLLM's flags. ``vllm``: its release.
    """

    shape: str
    adapters: int
    rank: int
    boxes: int
    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    max_model_len: int
    gpu_memory_utilization: float
    requests_per_minute: float
    seconds: float
    warm_up: float
    input_tokens: int
    output_tokens: int
    zipf: float
    seed: int
    singles: int
    single_tokens: int
    vllm: str
    device: Literal["gpu", "cpu"]
    extra: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """What cannot be measured so, in sentences."""
        found = []
        if self.adapters <= self.max_loras:
            found.append(
                f"{self.adapters} adapters all fit into {self.max_loras} slots, so that nothing is swapped: "
                "ask for more adapters or fewer slots"
            )
        if self.max_cpu_loras < self.adapters:
            found.append(f"the pool holds {self.max_cpu_loras} of {self.adapters} adapters: give more --max-cpu-loras")
        if self.rank > self.max_lora_rank:
            found.append(f"rank {self.rank} is over --max-lora-rank {self.max_lora_rank}")
        longest = max(2 * self.input_tokens + self.output_tokens, 256)
        if longest > self.max_model_len:
            found.append(f"--max-model-len {self.max_model_len} may be too short for prompts and answers ({longest})")
        return found

    @property
    def model(self) -> Shape:
        """Its sizes."""
        return SHAPES[self.shape]

    @property
    def customers(self) -> dict[str, str]:
        """Each customer's adapter."""
        return names(self.adapters)

    def of(self, section: Section) -> dict[str, Any]:
        """What the figures of ``section`` depend on, as JSON has it; a kept one is good while this is the same."""
        others = _OF_SINGLES if section in ("load", "base") else _OF_THE_LOAD
        content = {name: value for name, value in asdict(self).items() if name not in others}
        return dict(json.loads(json.dumps(content)))

    def mix(self) -> dict[str, Any]:
        """The load as `traffic.yaml` has it."""
        return {
            "requests_per_minute": self.requests_per_minute,
            "duration": f"{round(self.seconds * 1000)}ms",
            "warm_up": f"{round(self.warm_up * 1000)}ms",
            "prompt_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "zipf": self.zipf,
            "adapters": self.adapters,
            "seed": self.seed,
        }
