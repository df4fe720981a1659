"""How far a difference between two paths may be chance. Pure: the seed is handed in.

Both paths answer the same prompts, so all is paired: what counts is on which prompts they differ.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from statistics import NormalDist
from typing import Final

RESAMPLES: Final = 10_000
LEVEL: Final = 0.95
"""Of intervals; a p-value below one minus this is called significant."""
POWER: Final = 0.8


def mcnemar_exact(worse: int, better: int) -> float:
    """The two-sided p-value of McNemar's exact test: were both paths as good, how often would so many of the
    ``worse + better`` prompts that they differ on go one way?

    Binomial with a half, both tails (McNemar 1947). Raises ValueError for counts below zero.
    """
    if worse < 0 or better < 0:
        raise ValueError("counts are not below zero")
    n, extreme = worse + better, max(worse, better)
    tail = sum(math.comb(n, k) for k in range(extreme, n + 1))
    return min(1.0, tail / (1 << n) * 2)


def wilson(right: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share (Wilson 1927). Without prompts nothing is known."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = right / n, z * z / n
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(differences: Sequence[float], *, seed: int, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of the mean of ``differences``, one a prompt (Efron 1979), resampling prompts.

    Where none of them differs it is (0, 0): how little that says, :func:`prompts_needed` tells.
    """
    n = len(differences)
    moved = [one for one in differences if one]
    if not moved:
        return 0.0, 0.0
    drawn = random.Random(seed)  # noqa: S311  # repeatable on purpose
    # How many of the n draws are prompts that differ is binomial; only those have to be drawn one by one.
    cumulative = list(accumulate(_binomial(n, len(moved) / n)))
    top = cumulative[-1]
    means = sorted(
        math.fsum(drawn.choices(moved, k=bisect_left(cumulative, drawn.random() * top))) / n for _ in range(RESAMPLES)
    )
    beside = (1 - level) / 2
    return means[math.floor(beside * (RESAMPLES - 1))], means[math.ceil((1 - beside) * (RESAMPLES - 1))]


def prompts_needed(drop: float, differing: float, *, level: float = LEVEL, power: float = POWER) -> int:
    """So many prompts show a drop of ``drop`` (a share, not points) with probability ``power``, where the paths differ
    on a share ``differing`` of the prompts. That is at least ``drop``: then all that differs got worse.

    Connor's formula for paired proportions (Connor 1987, Biometrics 43). Raises ValueError unless 0 < drop <= 1.
    """
    if not 0 < drop <= 1:
        raise ValueError("a drop is between 0 and 1")
    differing = min(1.0, max(differing, drop))
    normal = NormalDist()
    alpha, beta = normal.inv_cdf((1 + level) / 2), normal.inv_cdf(power)
    spread = max(0.0, differing - drop * drop)
    return math.ceil((alpha * math.sqrt(differing) + beta * math.sqrt(spread)) ** 2 / (drop * drop))


def drop_shown(prompts: int, differing: float, *, level: float = LEVEL, power: float = POWER) -> float | None:
    """The smallest drop (a share) that ``prompts`` can show; None where not even the loss of all prompts would be."""
    low, high = 0.0, 1.0
    if prompts < prompts_needed(1.0, 1.0, level=level, power=power):
        return None
    for _ in range(40):
        middle = (low + high) / 2
        if prompts_needed(middle, differing, level=level, power=power) <= prompts:
            high = middle
        else:
            low = middle
    return high


def _binomial(n: int, share: float) -> list[float]:
    if share >= 1.0:
        return [0.0] * n + [1.0]
    logs = math.log(share), math.log1p(-share)
    return [
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * logs[0] + (n - k) * logs[1])
        for k in range(n + 1)
    ]
