"""What a gateway does about what it sees in the store. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from gateway.policy.versions import Head


class FollowStep(Enum):
    """The answer to one look at the store."""

    KEEP = "keep"
    """The store's current version is in force."""
    LOAD = "load"
    """Load the current version and put it in force."""
    REFUSED = "refused"
    """The current version was found unusable: the last good one stays."""
    BEHIND = "behind"
    """The store holds an older version than was seen of it, as after a restored backup: the last good one stays."""
    EMPTY = "empty"
    """The store was filled once and is empty: not read as "no policies", the last good version stays."""
    SEED = "seed"
    """The store never held a version: fill it."""
    WAIT = "wait"
    """The store never held a version, and there is nothing to fill it with."""


def follow_step(
    head: Head | None,
    *,
    in_force: Head | None,
    refused: Head | None,
    outranked: Head | None = None,
    seen: Mapping[str, int],
    ever_filled: bool,
    can_seed: bool,
) -> FollowStep:
    """``head``: the store's current version. ``seen``: the highest version seen of each store. ``outranked``: what was
    loaded and found to be the older of two contents under the number in force (:attr:`StoredVersion.rank`).

    Never goes back within one store. Other content under the number in force has to be looked at: a replica that was
    promoted before it had the version lets the next `apply` give its number again. A version under another store's id
    is adopted, unless that store had been further already.
    """
    if head is None:
        if ever_filled:
            return FollowStep.EMPTY
        return FollowStep.SEED if can_seed else FollowStep.WAIT
    if head.version < seen.get(head.store_id, 0):
        return FollowStep.BEHIND
    if in_force is not None and head.store_id == in_force.store_id:
        if head == in_force:
            return FollowStep.KEEP
        if head.version < in_force.version or head == outranked:
            return FollowStep.BEHIND
    return FollowStep.REFUSED if head == refused else FollowStep.LOAD
