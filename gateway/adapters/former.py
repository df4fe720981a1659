"""Which adapters earlier versions of the policies named: what was ours, and may be unloaded.

Asked only where a box lists what no policy names now; then versions are read from the newest on, until all are found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set

import msgspec

from gateway.adapters.wanted import Former
from gateway.clock import wall_s
from gateway.errors import StoreCorrupt, StoreError
from gateway.policy.pruning import KEPT_WHOLE
from gateway.policy.store import PolicyStore


class _Customer(msgspec.Struct):
    customer: str
    adapters: list[str]
    fleet: str | None = None


class _FleetFile(msgspec.Struct):
    fleets: dict[str, msgspec.Raw]


class _Document(msgspec.Struct):
    fleet: _FleetFile
    customers: list[_Customer]


_decode = msgspec.json.Decoder(_Document).decode


async def formerly(store: PolicyStore, fleet: str, names: Set[str]) -> dict[str, Former]:
    """Those of ``names`` that a version in ``store`` named for ``fleet``, and since when none does.

    Raises StoreUnreachable, StoreCorrupt.
    """
    found: dict[str, Former] = {}
    replaced_s = wall_s()
    # Who has changed policies more often since is told that the adapter is not ours, and may prune.
    for meta in await store.history(KEPT_WHOLE):
        if not names - found.keys():
            break
        try:
            document = (await store.load(meta.version)).document
            named = await asyncio.to_thread(_named, document, fleet)
        except (StoreCorrupt, msgspec.DecodeError):
            continue  # it says nothing, and another version may
        for name in names & named.keys() - found.keys():
            found[name] = Former(named[name], replaced_s)
        replaced_s = float(meta.created)
    return found


def _named(document: bytes, fleet: str) -> dict[str, str]:
    """By adapter, its customer. A customer that names no fleet is of the only one."""
    read = _decode(document)
    only = next(iter(read.fleet.fleets), None)
    return {name: one.customer for one in read.customers if (one.fleet or only) == fleet for name in one.adapters}


class FormerNames:
    """What is known of one fleet's by now, so that the store is not asked again and again for somebody else's."""

    def __init__(self, fleet: str) -> None:
        self._fleet = fleet
        self._found: dict[str, Former] = {}
        self._unknown: set[str] = set()

    def learned(self, found: Mapping[str, Former]) -> None:
        """These were dropped just now."""
        self._found.update(found)
        self._unknown -= found.keys()

    def named(self, wanted: Set[str]) -> None:
        """These are named: whatever is known of them is over."""
        for name in wanted & self._found.keys():
            del self._found[name]

    async def look(self, store: PolicyStore | None, names: Set[str]) -> Mapping[str, Former]:
        """Those of ``names`` that were ours. With the store away: those that are known already."""
        asked = names - self._found.keys() - self._unknown
        if asked and store is not None:
            try:
                self._found.update(await formerly(store, self._fleet, asked))
            except StoreError:
                return self._found
            self._unknown |= asked - self._found.keys()
        return self._found
