"""Who asks, for which models, and how often against the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.traffic.mix import ADAPTERS, ZIPF, TrafficMix


class NobodyToAsk(ValueError):
    """The mix names customers of whom no model is known, or more adapters than there are."""


@dataclass(frozen=True, slots=True)
class Asker:
    """One customer's model and its share of all requests, from 0 to 1."""

    customer: str
    model: str
    share: float


def population(mix: TrafficMix, known: Mapping[str, str] | None = None) -> tuple[Asker, ...]:
    """Everybody who asks, most first; shares sum to 1.

    ``known``: each customer's model where a policy folder or a running gateway says; with none the mix's own names
    are taken: a customer without ``model`` asks for one of its own name, and ``zipf`` makes up ``adapters`` many.
    Raises NobodyToAsk.
    """
    if mix.customers is not None:
        weighted = [(name, _model(name, part.model, known), float(part.weight)) for name, part in mix.customers.items()]
    else:
        names = list((known or _made_up(mix.adapters or ADAPTERS)).items())
        if mix.adapters is not None and mix.adapters > len(names):
            raise NobodyToAsk(f"the traffic wants {mix.adapters} adapters and {len(names)} are known")
        names = names[: mix.adapters]
        exponent = ZIPF if mix.zipf is None else mix.zipf
        weighted = [(name, model, rank**-exponent) for rank, (name, model) in enumerate(names, 1)]
    if not weighted:
        raise NobodyToAsk("no customer is known")
    total = sum(weight for _, _, weight in weighted)
    askers = [Asker(name, model, weight / total) for name, model, weight in weighted]
    return tuple(sorted(askers, key=lambda asker: -asker.share))


def _model(customer: str, written: str | None, known: Mapping[str, str] | None) -> str:
    if written is not None:
        return written
    if known is None:
        return customer
    if customer not in known:
        raise NobodyToAsk(f"{customer} is in the traffic and no model of it is known: write model, or leave it out")
    return known[customer]


def _made_up(count: int) -> dict[str, str]:
    width = len(str(count))
    return {f"customer-{n:0{width}}": f"adapter-{n:0{width}}" for n in range(1, count + 1)}
