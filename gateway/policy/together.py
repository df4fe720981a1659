"""Whether customers that are in order each by itself are so side by side.

What :mod:`gateway.policy.crosscheck` sees between customers, without saying where: that is left to it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Iterable, Sequence

import msgspec


class Key(msgspec.Struct, frozen=True):
    """An API key in its longer form."""

    sha256: str
    expires: dt.date | None = None


class Facts(msgspec.Struct, frozen=True):
    """What a customer's document says that others must not say too."""

    customer: str
    api_keys: list[str | Key]
    adapters: list[str]
    aliases: dict[str, msgspec.Raw] = {}
    fleet: str | None = None

    @property
    def digests(self) -> list[str]:
        """Of its keys, as they are stored."""
        return [key if isinstance(key, str) else key.sha256 for key in self.api_keys]

    def is_over(self, today: dt.date) -> bool:
        """Whether a key of its is, so that it is to be warned of, which depends on the day and is kept nowhere."""
        return any(key.expires is not None and key.expires < today for key in self.api_keys if isinstance(key, Key))


def facts(document: bytes) -> Facts:
    """Of a valid customer's document."""
    return msgspec.json.decode(document, type=Facts)


def distinct(names: Sequence[str], keys: Sequence[Hashable], adapters: Sequence[str], aliases: Iterable[str]) -> bool:
    """Whether nobody has what another has; of aliases, that none is an adapter."""
    taken = set(adapters)
    return (
        len(set(names)) == len(names)
        and len(set(keys)) == len(keys)
        and len(taken) == len(adapters)
        and taken.isdisjoint(aliases)
    )
