"""What became of one request."""

from __future__ import annotations

from dataclasses import dataclass

from backend.traffic.arrival import Arrival


@dataclass(frozen=True, slots=True)
class Sample:
    """One request's times, in seconds from the start of the run, and its answer.

    ``arrival.at_s``: when it was due, from which all is measured. ``sent_s``: when its first byte left; what it was
    late by is the client's own fault, and in every figure. ``first_s``: first content of a stream; None of a plain
    answer and where none came. ``last_s``: last content. ``longest_gap_s``: the longest silence between two pieces of
    content. ``error``: what came in place of an answer, or cut it off, in a few words that can be counted.
    """

    arrival: Arrival
    sent_s: float
    end_s: float
    first_s: float | None = None
    last_s: float | None = None
    longest_gap_s: float = 0.0
    status: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    served_by: str = "none"
    degraded: str | None = None
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """Time to first token, of a stream."""
        return None if self.first_s is None else self.first_s - self.arrival.at_s

    @property
    def e2e_s(self) -> float:
        """End to end."""
        return self.end_s - self.arrival.at_s

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between two tokens of a stream, as vLLM's and aiperf's clients have it: from the first to the last
        content, over the tokens after the first."""
        if self.first_s is None or self.last_s is None or self.output_tokens < 2:
            return None
        return (self.last_s - self.first_s) / (self.output_tokens - 1)

    @property
    def late_s(self) -> float:
        """How late the client itself was."""
        return self.sent_s - self.arrival.at_s
