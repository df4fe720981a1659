"""How prompts are asked: greedy once, or sampled several times; and the body that says so."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from backend.evalgate.case import Case


@dataclass(frozen=True, slots=True)
class Sampling:
    """``samples`` answers a prompt; ``seed`` + n is the n-th sample's, so that a run that goes on asks the same."""

    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int = 0
    stream: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1 or self.max_tokens < 1 or not 0 <= self.temperature <= 2:
            raise ValueError("samples and max_tokens are at least 1, a temperature is from 0 to 2")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples need a temperature above 0: greedy answers are all the same")

    def body(self, case: Case, model: str, sample: int) -> dict[str, Any]:
        """The request."""
        body: dict[str, Any] = {
            "model": model,
            "messages": case.messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed + sample,
            "stream": self.stream,
        }
        if case.tools is not None:
            body["tools"] = case.tools
            if case.tool_choice is not None:
                body["tool_choice"] = case.tool_choice
        return body

    def as_json(self) -> dict[str, Any]:
        """For the run's folder."""
        return asdict(self)
