"""How far a version has come: which gateways have it in force, and what is known of those that have not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.policy.standing import Replica
from gateway.policy.versions import Head

if TYPE_CHECKING:
    from gateway.policy.store import PolicyStore

LOOK_S = 0.05
"""From one look at the store to the next while somebody waits."""

LONG_SILENCE_S = 3.0
"""Two signs of life that are missing, which is worth a word. After ``REPLICA_TTL_S`` nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One look. ``took``: those that have the version, or a later one. ``refused`` and ``ahead`` never will:
    the latter have seen the store further than it is, as before a backup was restored. ``silent``: those that are not
    heard of any more and did not have it by then, so that they may serve by another for as long as they live."""

    took: tuple[Replica, ...] = ()
    waiting: tuple[Replica, ...] = ()
    refused: tuple[Replica, ...] = ()
    ahead: tuple[Replica, ...] = ()
    silent: tuple[Replica, ...] = ()
    head: Head | None = None
    """What was asked about."""

    @property
    def alive(self) -> int:
        """How many gateways live on the store."""
        return len(self.took) + len(self.waiting) + len(self.refused) + len(self.ahead)

    @property
    def complete(self) -> bool:
        """Whether every gateway that may serve has the version."""
        return len(self.took) == self.alive and not self.silent

    def without(self) -> Iterator[tuple[Replica, str]]:
        """Those that do not have it, and why, in words."""
        for replica in self.refused:
            refused = replica.standing.refused if replica.standing is not None else None
            yield replica, f"refuses it: {refused.why if refused is not None else 'it does not say why'}"
        for replica in self.ahead:
            yield replica, f"{_stays(replica)}, and never goes back: apply until that number is passed"
        for replica in self.waiting:
            why = _stays(replica)
            in_force = replica.in_force
            if self.head is not None and in_force is not None and in_force.version == self.head.version:
                why += ", with other content"  # see StoredVersion.rank
            if replica.silent_s >= LONG_SILENCE_S:
                why += f", and was last heard of {replica.silent_s:.0f} s ago"
            yield replica, why
        for replica in self.silent:
            may = ", and may still serve by it" if replica.in_force is not None else ""
            yield replica, f"{replica.last_heard}{may}"


def _stays(replica: Replica) -> str:
    if replica.standing is None:
        return "does not say which version it has"
    in_force = replica.standing.in_force
    return "has no version yet" if in_force is None else f"has {in_force} in force"


def rollout(head: Head, current: Head | None, replicas: Sequence[Replica]) -> Rollout:
    """How far ``head`` has come. ``current``: the store's version by now, which may be a later one. Pure."""
    superseded = current is not None and current.store_id == head.store_id and current.version > head.version
    found: dict[str, list[Replica]] = {"took": [], "waiting": [], "refused": [], "ahead": [], "silent": []}
    for replica in replicas:
        standing = replica.standing
        in_force = replica.in_force
        further = in_force is not None and in_force.store_id == head.store_id and in_force.version > head.version
        if in_force == head or (further and superseded):
            found["took"].append(replica)
        elif further:
            found["ahead"].append(replica)
        elif standing is not None and standing.refused is not None and standing.refused.head == head:
            found["refused"].append(replica)
        elif replica.is_silent:
            found["silent"].append(replica)
        else:
            found["waiting"].append(replica)
    return Rollout(**{name: tuple(there) for name, there in found.items()}, head=head)


async def until_in_force(
    store: PolicyStore, head: Head, *, timeout_s: float, on_look: Callable[[Rollout], None] = lambda look: None
) -> Rollout:
    """The last look: when all that can take ``head`` have it, or after ``timeout_s``. Raises StoreError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        look = rollout(head, await store.head(), await store.replicas())
        on_look(look)
        if not look.waiting or loop.time() >= deadline:
            return look
        await asyncio.sleep(LOOK_S)
