"""How long prompts and answers are: one length, an even spread, or a log-normal one."""

from __future__ import annotations

import math
import random
from statistics import NormalDist
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, model_validator

from gateway.policy.keys import Keys

Z_90: Final = 1.2815515655446004
"""The 90th percentile of the standard normal distribution."""

TAIL: Final = 4.0
"""Where a log-normal's draws are cut when no ``max`` is written, as a multiple of ``p90``: some context length has to
hold, and beyond this are fewer than 1 in 1,000 wherever ``p90`` is twice the median or less."""

Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


class LogNormal(Keys):
    """Many short ones and a long tail, as prompts have it."""

    median: Annotated[float, Field(ge=1, le=1_000_000)]
    """Half are shorter."""
    p90: Annotated[float, Field(ge=1, le=1_000_000)]
    """Nine in ten are shorter."""
    max: Tokens | None = None
    """Longer draws are cut to this; four times p90 when left out."""

    @model_validator(mode="after")
    def _in_order(self) -> LogNormal:
        if self.p90 < self.median:
            raise ValueError("has a p90 below its median")
        return self

    @property
    def sigma(self) -> float:
        """Of the logarithm."""
        return math.log(self.p90 / self.median) / Z_90

    @property
    def longest(self) -> int:
        """``max`` with its default."""
        return self.max if self.max is not None else math.ceil(self.p90 * TAIL)


class Lengths(Keys):
    """Exactly one of its keys; a bare number is a fixed length."""

    fixed: Tokens | None = None
    """Always the same."""
    uniform: Annotated[list[Tokens], Field(min_length=2, max_length=2)] | None = None
    """From the first to the second, each as likely."""
    lognormal: LogNormal | None = None
    """A median and a tail."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Lengths:
        if sum(value is not None for value in (self.fixed, self.uniform, self.lognormal)) != 1:
            raise ValueError("needs exactly one of fixed, uniform and lognormal")
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise ValueError("has a uniform range that ends before it begins")
        return self

    def draw(self, chance: random.Random) -> int:
        """One length in tokens, at least 1. Takes one number of ``chance``, whatever the distribution."""
        share = chance.random()
        if self.uniform is not None:
            low, high = self.uniform
            return low + min(int(share * (high - low + 1)), high - low)
        if self.lognormal is not None:
            shape = self.lognormal
            drawn = shape.median * math.exp(shape.sigma * _normal_quantile(share))
            return min(max(1, round(drawn)), shape.longest)
        return self.fixed or 1

    @property
    def mean(self) -> float:
        """Tokens on average; of a log-normal without its cut."""
        if self.uniform is not None:
            return sum(self.uniform) / 2
        if self.lognormal is not None:
            return self.lognormal.median * math.exp(self.lognormal.sigma**2 / 2)
        return float(self.fixed or 1)


def _normal_quantile(share: float) -> float:
    return NormalDist().inv_cdf(min(max(share, 1e-12), 1 - 1e-12))


def _bare_number(value: Any) -> Any:
    return {"fixed": value} if isinstance(value, int) and not isinstance(value, bool) else value


LengthsKey = Annotated[Lengths, BeforeValidator(_bare_number)]
"""A pydantic type: a mapping, or a bare number for a fixed length."""
