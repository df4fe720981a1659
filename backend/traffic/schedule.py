"""From a mix to its arrivals: the same seed, the same list. Reads no clock.

Arrivals are a Poisson process: independent exponential gaps. A burst is a second such process on top, as the sum of two
Poisson processes is one at the sum of their rates. What is drawn for what comes from streams of chance of its own, so
that a change of, say, answer lengths leaves all times and customers as they were.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from backend.traffic.arrival import Arrival
from backend.traffic.mix import Burst, TrafficMix
from backend.traffic.population import Asker, population


def schedule(mix: TrafficMix, seed: int | None = None, askers: Sequence[Asker] | None = None) -> list[Arrival]:
    """Every arrival from 0 to ``mix.length_s``, in order of time.

    ``seed``: the mix's when left out; ``askers``: :func:`population` of the mix when left out. Raises NobodyToAsk.
    """
    seed = mix.seed if seed is None else seed
    askers = population(mix) if askers is None else askers
    usual = mix.requests_per_minute / 60
    moments = list(_moments(usual, 0.0, mix.length_s, askers, _stream(seed, "usual")))
    for number, burst in enumerate(mix.bursts):
        moments += _burst(burst, mix, usual, askers, _stream(seed, f"burst {number}"))
    moments.sort(key=lambda moment: moment[0])
    prompts, outputs, streams = (_stream(seed, use) for use in ("prompts", "outputs", "streams"))
    return [
        Arrival(
            at_s=at_s,
            customer=asker.customer,
            model=asker.model,
            prompt_tokens=mix.prompt_tokens.draw(prompts),
            output_tokens=mix.output_tokens.draw(outputs),
            streamed=streams.random() < mix.stream,
        )
        for at_s, asker in moments
    ]


def _stream(seed: int, use: str) -> random.Random:
    return random.Random(f"{seed} {use}")  # noqa: S311 - whose turn it is in a test is no secret


def _moments(
    per_s: float, begin_s: float, end_s: float, askers: Sequence[Asker], chance: random.Random
) -> Iterator[tuple[float, Asker]]:
    shares = list(itertools.accumulate(asker.share for asker in askers))
    at_s = begin_s
    while (at_s := at_s + chance.expovariate(per_s)) < end_s:
        yield at_s, chance.choices(askers, cum_weights=shares)[0]


def _burst(
    burst: Burst, mix: TrafficMix, usual: float, askers: Sequence[Asker], chance: random.Random
) -> list[tuple[float, Asker]]:
    begin_s = mix.warm_up + burst.at
    end_s = min(begin_s + burst.for_, mix.length_s)
    if burst.adapters is not None:
        count = min(burst.adapters, len(askers))
        askers = [Asker(one.customer, one.model, 1 / count) for one in chance.sample(list(askers), count)]
    return list(_moments(usual * (burst.times - 1), begin_s, end_s, askers, chance))
