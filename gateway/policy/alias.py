"""Aliases: a name that stays while the adapter's versions behind it come and go, and who gets which of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Self

_STEPS = 2**52
"""Of the unit interval: so many that a half more of one is still an exact float."""


def named_conversation(name: str) -> bytes:
    """The key of a conversation that its client calls ``name``."""
    return b"name\0" + name.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Alias:
    """One customer's alias. ``weights``: as they were written, in that order, with those that are 0.

    ``only``: the adapter that gets every request; None where several share them. ``predecessors``: what it stood for in
    earlier versions of the policies, the latest first, for as long as boxes lack what it stands for now.
    """

    customer: str
    name: str
    weights: Mapping[str, int] = field(hash=False)
    only: str | None
    predecessors: tuple[str, ...] = field(default=(), kw_only=True)
    _shares: tuple[tuple[str, int, bytes], ...] = field(repr=False)

    @classmethod
    def of(cls, customer: str, name: str, target: str | Mapping[str, int]) -> Self:
        """From what the policy says: an adapter's name, or weights of which at least one is more than 0."""
        if isinstance(target, str):
            return cls(customer, name, {target: 1}, target, ((target, 1, _drawn_from(customer, name, target)),))
        weights = dict(target)
        shares = tuple(
            (adapter, weight, _drawn_from(customer, name, adapter)) for adapter, weight in weights.items() if weight > 0
        )
        if not shares:
            raise ValueError(f"alias {name} of {customer}: all weights are 0")
        return cls(customer, name, weights, shares[0][0] if len(shares) == 1 else None, shares)

    @property
    def heaviest(self) -> str:
        """The adapter that most requests go to; the first of several."""
        return max(self._shares, key=lambda share: share[1])[0]

    def versions(self, conversation: bytes) -> tuple[str, ...]:
        """The adapters for ``conversation`` in the order of preference; those of weight 0 are not among them.
        Predecessors come last: they stand in where boxes lack all others.

        Weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): each adapter draws an exponential time of rate
        ``weight`` from a hash of itself and the conversation, and the first wins. So an adapter wins with its share of
        the weights, and when weights change conversations move only to adapters whose share has grown. It is the same
        in every process, as it knows nothing but names.
        """
        if self.only is not None:
            return (self.only, *self.predecessors)
        drawn = sorted((_draw(prefix, conversation) / weight, adapter) for adapter, weight, prefix in self._shares)
        return (*(adapter for _, adapter in drawn), *self.predecessors)


def _drawn_from(customer: str, name: str, adapter: str) -> bytes:
    return f"{customer}\0{name}\0{adapter}\0".encode()


def _draw(prefix: bytes, conversation: bytes) -> float:
    """A number of the exponential distribution of rate 1, always the same for the same bytes."""
    hashed = int.from_bytes(blake2b(prefix + conversation, digest_size=8).digest(), "big") >> 12
    return -math.log((hashed + 0.5) / _STEPS)
