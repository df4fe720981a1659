"""One request of a schedule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who asks what when.

    ``at_s``: seconds from the start of the run, warm-up included. ``model``: the OpenAI ``model``, an adapter or an
    alias. ``prompt_tokens`` and ``output_tokens``: what is to be read and what is to be written.
    """

    at_s: float
    customer: str
    model: str
    prompt_tokens: int
    output_tokens: int
    streamed: bool
