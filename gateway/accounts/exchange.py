"""What one process that admits requests and the store tell each other, in the background."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Row(msgspec.Struct, array_like=True, frozen=True):
    """What was used by one customer's requests of one kind. ``counts``: in the order of ``usage.COUNTS``."""

    customer: str
    kind: str
    reason: str
    counts: tuple[int, ...]


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What was used since the last batch. ``day``: ISO, UTC. ``again``: it was sent before, and whether it arrived is
    not known."""

    number: int
    day: str
    rows: list[Row]
    again: bool = False


class Ask(msgspec.Struct, array_like=True, frozen=True):
    """``me``: who asks; ``beat``: grows while it lives, 0 where it is not due; ``leaves``: it ends.

    ``published``: by account; ``wanted``: accounts of which it wants more; ``unwanted``: of which nobody does.
    ``gone``: who has ended long ago. ``spenders``: whose spend of ``day`` it wants to know.
    """

    me: str
    beat: int
    published: dict[str, bytes]
    wanted: list[str]
    unwanted: list[str]
    gone: list[str]
    batch: Batch | None
    day: str
    spenders: list[str]
    leaves: bool = False


class Told(msgspec.Struct, array_like=True, frozen=True):
    """``published``: of the accounts that were asked with, by account and process; ``beats``: who lives, by process.

    ``spent``: nano-USD by customer, with the batch in it.
    """

    published: dict[str, dict[str, bytes]]
    beats: dict[str, int]
    wanted: list[str]
    spent: dict[str, int]


class Exchange(Protocol):
    """Where the processes meet."""

    async def exchange(self, ask: Ask) -> Told:
        """Tell and hear. Raises :class:`gateway.errors.StoreError`; whether it was heard is then not known."""
