"""All ways to fall back and what is known of each. Pure: clocks and chance are handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.drills.proof import Proof, merged
from gateway.drills.schedule import Schedule
from gateway.drills.target import Target

State = Literal["proven", "failed", "stale", "unproven"]
"""``failed``: the last try; ``stale``: its last good try is longer ago than twice its interval; ``unproven``: there was
none yet."""

STALE = 2.0
"""Intervals after which a proof says nothing any more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """``age_s``: since it last went well; None: never. ``held_back``: why it was not tried when it was last due; empty
    where it was.
    """

    target: Target
    proof: Proof | None
    age_s: float | None
    state: State
    held_back: str = ""


class Ledger:
    """``now`` is monotonic, in seconds; ``server_ms`` the store's clock at the same moment, in Unix milliseconds."""

    def __init__(self, uniform: Callable[[], float]) -> None:
        self.targets: Mapping[str, Target] = {}
        self._proofs: dict[str, Proof] = {}
        self._schedule = Schedule(uniform)
        self._since: dict[str, float] = {}
        self._held_back: dict[str, str] = {}

    def follow(self, targets: Mapping[str, Target], server_ms: int, now: float) -> None:
        """A policy version has these."""
        self.targets = targets
        self._since = {key: self._since.get(key, now) for key in targets}
        self._held_back = {key: why for key, why in self._held_back.items() if key in targets}
        self._schedule.follow(targets, self._proofs, server_ms, now)

    def take(self, proofs: Iterable[Proof], server_ms: int, now: float) -> bool:
        """Learn of ``proofs``; whether anything is new."""
        new = False
        for proof in proofs:
            known = self._proofs.get(proof.key)
            if (holds := proof if known is None else merged(known, proof)) == known:
                continue
            self._proofs[proof.key] = holds
            self._held_back.pop(proof.key, None)
            new = True
            if (target := self.targets.get(proof.key)) is not None:
                self._schedule.plan(target, holds, server_ms, now)
        return new

    def proof(self, key: str) -> Proof | None:
        """What is known of one."""
        return self._proofs.get(key)

    def lacking(self, stored: Mapping[str, Proof]) -> list[Proof]:
        """What the store, which holds ``stored``, does not know of the ways that there are."""
        known = [proof for key, proof in self._proofs.items() if key in self.targets]
        return [proof for proof in known if (there := stored.get(proof.key)) is None or merged(proof, there) != there]

    def due(self, now: float) -> list[Target]:
        """What is to be tried, the longest overdue first."""
        return [self.targets[key] for key in self._schedule.due(now)]

    def postpone(self, key: str, until: float) -> None:
        """It is not to be tried before ``until``."""
        self._schedule.postpone(key, until)

    def hold_back(self, key: str, why: str, until: float) -> None:
        """It was to be tried, and may not be, in these words; again at ``until``."""
        self._held_back[key] = why
        self._schedule.postpone(key, until)

    def entries(self, server_ms: int, now: float) -> list[Entry]:
        """All of them, what needs a look first, then the oldest."""
        found = [self.entry(target, server_ms, now) for target in self.targets.values()]
        return sorted(found, key=lambda entry: (_SEQUENCE[entry.state], -(entry.age_s or 0.0), entry.target.name))

    def troubled(self, server_ms: int, now: float) -> Iterator[Entry]:
        """Those that have failed or are stale: nearly none of what may be ten thousand."""
        for target in self.targets.values():
            if self._state(target, self._proofs.get(target.key), server_ms, now) in ("failed", "stale"):
                yield self.entry(target, server_ms, now)

    def entry(self, target: Target, server_ms: int, now: float) -> Entry:
        """One of them."""
        proof = self._proofs.get(target.key)
        state = self._state(target, proof, server_ms, now)
        return Entry(target, proof, _age_s(proof, server_ms), state, self._held_back.get(target.key, ""))

    def _state(self, target: Target, proof: Proof | None, server_ms: int, now: float) -> State:
        if proof is not None and proof.error:
            return "failed"
        age_s = _age_s(proof, server_ms)
        # What was never proven is as old as it is known here.
        known_for_s = now - self._since.get(target.key, now) if age_s is None else age_s
        if target.every_s is not None and known_for_s > STALE * target.every_s:
            return "stale"
        return "unproven" if age_s is None else "proven"


def _age_s(proof: Proof | None, server_ms: int) -> float | None:
    """Since it last went well; None: never."""
    return None if proof is None or not proof.good_ms else max(0.0, (server_ms - proof.good_ms) / 1000)


_SEQUENCE: dict[State, int] = {"failed": 0, "stale": 1, "unproven": 2, "proven": 3}
