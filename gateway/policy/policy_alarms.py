"""What people are told about the state of the policies: which alarms there are, and when each is on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from gateway.errors import PolicyError, StoreError, StoreReadOnly
from gateway.policy.follow_step import FollowStep
from gateway.policy.versions import Head, StoredVersion

log = logging.getLogger(__name__)

STORE_AWAY = "policy_store_away"
STORE_READ_ONLY = "policy_store_read_only"
STORE_EMPTY = "policy_store_empty"
STORE_BEHIND = "policy_store_behind"
VERSION_REFUSED = "policy_version_refused"
FOLDER_INVALID = "policy_folder_invalid"
SNAPSHOT_LOST = "policy_snapshot"
SUBJECT = "policies"


class AlarmSink(Protocol):
    """Where alarms go: :class:`gateway.observe.alarms.Alarms`."""

    def on(self, kind: str, subject: str, message: str) -> None:
        """The condition holds."""

    def off(self, kind: str, subject: str) -> None:
        """It does not, or no longer."""


@contextmanager
def writing(alarms: AlarmSink) -> Iterator[None]:
    """Round a write to the store: whether it takes any is an alarm. What else goes wrong says nothing about that."""
    try:
        yield
    except StoreReadOnly as error:
        message = f"{error}; policies are followed as far as they can be read, and gateways do not hear of each other"
        alarms.on(STORE_READ_ONLY, SUBJECT, message)
        raise
    alarms.off(STORE_READ_ONLY, SUBJECT)


class PolicyAlarms:
    """Turns what the follower meets into alarms and log lines. ``in_force``: kept current by the follower."""

    def __init__(self, alarms: AlarmSink) -> None:
        self._alarms = alarms
        self._logged: dict[str, str] = {}
        self.in_force: Head | None = None

    def _serving(self) -> str:
        return f"{self.in_force} stays in force" if self.in_force is not None else "there are no policies yet"

    def _on(self, kind: str, message: str, detail: str = "") -> None:
        """``detail``: for the log, where an alarm's one line is not all. The same again is not logged again."""
        self._alarms.on(kind, SUBJECT, message)
        if self._logged.get(kind) != message:
            self._logged[kind] = message
            log.error("%s: %s%s", kind, message, f"\n{detail}" if detail else "")

    def _off(self, kind: str) -> None:
        self._logged.pop(kind, None)
        self._alarms.off(kind, SUBJECT)

    def store_away(self, error: StoreError) -> None:
        """The store does not answer, or nothing usable."""
        self._on(STORE_AWAY, f"{error}; {self._serving()}")

    def store_answers(self) -> None:
        """It does again."""
        self._off(STORE_AWAY)

    def version_refused(self, head: Head, error: StoreError | PolicyError) -> None:
        """The current version cannot be used. It is off again with the next step."""
        self._on(VERSION_REFUSED, f"{head} is refused: {first_line(error)}; {self._serving()}", str(error))

    def number_given_twice(self, now: StoredVersion, other: StoredVersion) -> None:
        """Under the number in force the store holds other content. An event for the log: what holds is settled."""
        later = other if other.rank > now.rank else now
        log.error(
            "policies: %s was given twice, to content %.12s and %.12s: %.12s was applied later and holds",
            now.head,
            now.head.digest,
            other.head.digest,
            later.head.digest,
        )

    def folder_invalid(self, error: PolicyError) -> None:
        """The folder does not hold together."""
        self._on(FOLDER_INVALID, f"{first_line(error)}; {self._serving()}", str(error))

    def folder_valid(self) -> None:
        """It does again."""
        self._off(FOLDER_INVALID)

    def snapshot_unreadable(self, error: Exception) -> None:
        """Nothing is known from before the start."""
        self._on(SNAPSHOT_LOST, f"the snapshot cannot be used: {first_line(error)}")

    def snapshot_unwritable(self, path: Path, error: OSError) -> None:
        """A restart would know less than it could."""
        self._on(SNAPSHOT_LOST, f"{path} cannot be written, a restart would not know the policies: {error}")

    def snapshot_written(self) -> None:
        """All is well with it."""
        self._off(SNAPSHOT_LOST)

    def step(self, step: FollowStep, head: Head | None) -> None:
        """What was made of the last look at the store."""
        if step is FollowStep.EMPTY:
            message = f"the policy store held versions and is empty now; {self._serving()}"
            self._on(STORE_EMPTY, f"{message} until `failsoft policies apply` fills it")
        elif step is FollowStep.WAIT:
            self._on(STORE_EMPTY, "the policy store never held a version: `failsoft policies apply DIR` writes one")
        else:
            self._off(STORE_EMPTY)
        if step is FollowStep.BEHIND:
            message = f"the policy store is at {head}, behind what was seen of it"
            if self.in_force is not None and head is not None and head.version == self.in_force.version:
                message = f"the policy store holds other and older content under the number of {head}"
            self._on(STORE_BEHIND, f"{message}; {self._serving()} until its number is passed")
        else:
            self._off(STORE_BEHIND)
        if step is not FollowStep.REFUSED:
            self._off(VERSION_REFUSED)


def first_line(error: Exception) -> str:
    """The first finding and how many more there are, as an alarm is one line."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")
