"""What a traffic file says: how many requests, whose, how long, in which bursts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from backend.traffic.lengths import Lengths, LengthsKey
from gateway.policy.durations import Duration, format_duration, parse_duration
from gateway.policy.keys import Keys
from gateway.policy.names import ModelName, Name

ADAPTERS = 40
ZIPF = 1.0


def _span(value: object) -> float:
    """A duration that may be nothing: seconds."""
    return 0.0 if value in ("0s", "0ms", "0m") or (value == 0 and value is not False) else parse_duration(value)


Span = Annotated[
    float,
    BeforeValidator(_span),
    PlainSerializer(lambda seconds: format_duration(seconds) if seconds else "0s", return_type=str),
]
"""A pydantic type: a duration such as 10s, or 0s; seconds in the program."""


class CustomerTraffic(Keys):
    """One customer's part."""

    weight: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    """Its share of the requests against the other customers' weights."""
    model: ModelName | None = None
    """What it asks for, where that is not its first adapter in the policies."""


def _bare_weight(value: Any) -> Any:
    return {"weight": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class Burst(Keys):
    """More traffic for a while, from many adapters at once."""

    at: Span
    """When it begins, from the start of what is measured (after the warm-up)."""
    for_: Annotated[Duration, Field(alias="for")]
    """How long it lasts."""
    times: Annotated[float, Field(gt=1, le=1000, allow_inf_nan=False)]
    """So many times the usual requests a minute."""
    adapters: Annotated[int, Field(ge=1)] | None = None
    """What is more than usual comes evenly from so many distinct adapters; by the usual weights when left out."""


def _share(value: Any) -> Any:
    return float(value) if isinstance(value, bool) else value


class TrafficMix(Keys):
    """traffic.yaml. Durations in seconds."""

    requests_per_minute: Annotated[float, Field(gt=0, le=10_000_000, allow_inf_nan=False)] = 600.0
    """Of all customers; Poisson arrivals, so this is their mean."""
    duration: Duration = 60.0
    """How long is measured."""
    warm_up: Span = 10.0
    """How long the same traffic flows before that, uncounted."""
    customers: (
        Annotated[dict[Name, Annotated[CustomerTraffic, BeforeValidator(_bare_weight)]], Field(min_length=1)] | None
    ) = None
    """Customers and their weights."""
    zipf: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] | None = None
    """In place of customers: all that are known, the n-th with weight 1/n to this power. 1.0."""
    adapters: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """With zipf: so many customers with an adapter each, made up where none are known. 40."""
    prompt_tokens: LengthsKey = Lengths(fixed=256)
    """How long prompts are."""
    output_tokens: LengthsKey = Lengths(fixed=256)
    """How long answers are."""
    stream: Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)] = 1.0
    """The share of requests that stream, from 0 to 1."""
    bursts: list[Burst] = Field(default_factory=list)
    """Times of more traffic."""
    seed: int = 1
    """The same seed gives the same arrivals."""

    @model_validator(mode="after")
    def _one_population(self) -> TrafficMix:
        if self.customers is not None and self.zipf is not None:
            raise ValueError("has both customers and zipf: the weights are written out, or follow Zipf's law")
        if self.customers is not None and self.adapters is not None:
            raise ValueError("has both customers and adapters: adapters goes with zipf")
        return self

    @property
    def length_s(self) -> float:
        """Of the whole run, warm-up included."""
        return self.warm_up + self.duration
