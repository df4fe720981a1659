"""The rules by which a gateway follows its store, over any history that a store may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.follow_step import FollowStep, follow_step
from gateway.policy.snapshot import Memory
from gateway.policy.versions import Head


def head(version: int, store: str = "a", digest: str = "d") -> Head:
    return Head(store, version, digest)


def step(
    now: Head | None,
    *,
    in_force: Head | None = None,
    refused: Head | None = None,
    outranked: Head | None = None,
    seen: Mapping[str, int] | None = None,
    can_seed: bool = False,
) -> FollowStep:
    seen = seen or {}
    return follow_step(
        now,
        in_force=in_force,
        refused=refused,
        outranked=outranked,
        seen=seen,
        ever_filled=bool(seen),
        can_seed=can_seed,
    )


def test_a_store_that_never_held_a_version_is_seeded_by_whoever_has_something() -> None:
    assert step(None, can_seed=True) is FollowStep.SEED
    assert step(None) is FollowStep.WAIT


def test_a_store_that_was_seen_filled_is_never_seeded() -> None:
    assert step(None, seen={"a": 1}, can_seed=True) is FollowStep.EMPTY


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (head(5), FollowStep.KEEP),
        (head(6), FollowStep.LOAD),
        (head(4), FollowStep.BEHIND),
        (head(5, digest="other"), FollowStep.LOAD),
        (head(1, "b"), FollowStep.LOAD),
    ],
)
def test_a_gateway_goes_forward_within_a_store_and_over_to_a_new_one(now: Head, expected: FollowStep) -> None:
    assert step(now, in_force=head(5), seen={"a": 5}) is expected


def test_a_store_that_was_left_may_come_back_but_not_at_an_older_version() -> None:
    seen = {"a": 5, "b": 1}
    assert step(head(5), in_force=head(1, "b"), seen=seen) is FollowStep.LOAD
    assert step(head(4), in_force=head(1, "b"), seen=seen) is FollowStep.BEHIND


def test_other_content_of_the_number_in_force_that_is_older_is_not_loaded_again() -> None:
    older = head(5, digest="older")
    assert step(older, in_force=head(5), outranked=older, seen={"a": 5}) is FollowStep.BEHIND
    assert step(head(6), in_force=head(5), outranked=older, seen={"a": 5}) is FollowStep.LOAD


def test_a_version_that_was_refused_is_not_loaded_again_and_the_next_one_is() -> None:
    assert step(head(6), in_force=head(5), refused=head(6), seen={"a": 6}) is FollowStep.REFUSED
    assert step(head(7), in_force=head(5), refused=head(6), seen={"a": 6}) is FollowStep.LOAD


@dataclass
class Gateway:
    """A follower without I/O, which restarts now and then and keeps only its memory."""

    memory: Memory = field(default_factory=Memory)
    in_force: Head | None = None
    refused: Head | None = None
    outranked: Head | None = None
    history: list[Head] = field(default_factory=list)

    def look(self, now: Head | None, *, usable: bool) -> FollowStep:
        found = follow_step(
            now,
            in_force=self.in_force,
            refused=self.refused,
            outranked=self.outranked,
            seen=self.memory.seen,
            ever_filled=self.memory.ever_filled(embedded=False),
            can_seed=True,
        )
        if found is FollowStep.LOAD and now is not None:
            self.memory = self.memory.having_seen(now, embedded=False)
            # As if all were applied in one second, so that the digest decides.
            same = self.in_force is not None and (self.in_force.store_id, self.in_force.version) == (
                now.store_id,
                now.version,
            )
            if same and self.in_force is not None and now.digest < self.in_force.digest:
                self.outranked = now
            elif usable:
                self.in_force = now
                self.history.append(now)
            else:
                self.refused = now
        return found


heads = st.builds(Head, store_id=st.sampled_from("ab"), version=st.integers(1, 6), digest=st.sampled_from(("x", "y")))
looks = st.lists(st.tuples(st.none() | heads, st.booleans(), st.booleans()), max_size=30)


@given(looks)
def test_whatever_a_store_shows_versions_never_go_backwards_and_nothing_is_ever_dropped(
    history: list[tuple[Head | None, bool, bool]],
) -> None:
    gateway = Gateway()
    for now, usable, restart in history:
        if restart:
            gateway.refused = None
        before = gateway.in_force
        found = gateway.look(now, usable=usable)
        assert found is not FollowStep.SEED or not gateway.memory.ever_filled(embedded=False)
        assert gateway.in_force is not None or before is None
        if found is FollowStep.KEEP:
            assert now == gateway.in_force
    for store in "ab":
        versions = [h.version for h in gateway.history if h.store_id == store]
        assert versions == sorted(versions)
    # Of two contents under one number the later one holds, as long as no other store was followed in between.
    for one, next_one in pairwise(gateway.history):
        if (one.store_id, one.version) == (next_one.store_id, next_one.version):
            assert one.digest < next_one.digest
