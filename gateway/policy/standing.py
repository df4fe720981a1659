"""What each gateway on a store says of itself with its sign of life: the version in force, or why there is another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from gateway.policy.versions import Head

REPLICA_TTL_S = 5.0
"""After so long without a sign of life, three of which are missing then, a gateway counts as silent: it shares nothing,
and is not waited for. One that was away for less comes back to the share it had."""


class Refusal(msgspec.Struct, frozen=True):
    """A version that a gateway cannot use, and why, in one line."""

    head: Head
    why: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """``name``: where it listens, ``host:port``. ``in_force``: what all of its workers have; None before the first."""

    name: str
    pid: int
    in_force: Head | None = None
    refused: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Replica:
    """One that has not said that it ends. ``silent_s``: since its last sign of life. ``standing`` None: not known."""

    id: str
    silent_s: float
    standing: Standing | None

    @property
    def name(self) -> str:
        """For people."""
        return self.standing.name if self.standing is not None else f"gateway {self.id[:8]}"

    @property
    def in_force(self) -> Head | None:
        """The version that it last said it has."""
        return self.standing.in_force if self.standing is not None else None

    @property
    def is_silent(self) -> bool:
        """Whether it is not heard of. It may live all the same, where the store does not hear it."""
        return self.silent_s > REPLICA_TTL_S

    @property
    def last_heard(self) -> str:
        """``was last heard of 7 s ago, at version 9``"""
        at = f", at version {self.in_force.version}" if self.in_force is not None else ""
        return f"was last heard of {self.silent_s:.0f} s ago{at}"


def highest_known(replicas: Iterable[Replica], store_id: str) -> int:
    """The highest number that a gateway is known to know of this store, in force or refused; 0 where none knows any.

    A store may know less: a replica that was promoted before it had the last version.
    """
    known = [
        head.version
        for replica in replicas
        if (standing := replica.standing) is not None
        for head in (standing.in_force, standing.refused.head if standing.refused is not None else None)
        if head is not None and head.store_id == store_id
    ]
    return max(known, default=0)


def encode_standing(standing: Standing) -> bytes:
    """As it lies in the store."""
    return msgspec.json.encode(standing)


def decode_standing(raw: bytes | None) -> Standing | None:
    """None for what another release wrote in another form: that it lives is known all the same."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=Standing)
    except msgspec.DecodeError:
        return None
