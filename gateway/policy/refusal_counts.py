"""The same refusal again and again, told once and then counted: whoever guesses tokens must not push out the rest.

Pure: entries and times in, entries to write out.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from gateway.policy.audit_stream import AuditEntry

EACH_S = 60.0
"""Between two entries on the same refusals."""

MOST_SOURCES = 256
"""Addresses that are told apart; all others count as one."""

OTHERS = "other addresses"


@dataclass(slots=True)
class _Counted:
    since: float
    last: AuditEntry
    times: int = 0


class RefusalCounts:
    """``take`` each refusal, ask ``due`` now and then. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], _Counted] = {}

    def take(self, entry: AuditEntry, now: float) -> AuditEntry | None:
        """What to write at once: the first of its kind for a minute. All further ones are counted."""
        key = (entry.who, entry.where, entry.outcome)
        if key not in self._known and len(self._known) >= MOST_SOURCES:
            entry = msgspec.structs.replace(entry, where=OTHERS, who="")
            key = (entry.who, entry.where, entry.outcome)
        if (counted := self._known.get(key)) is None:
            self._known[key] = _Counted(now, entry)
            return entry
        counted.times += 1
        counted.last = entry
        return None

    def due(self, now: float) -> list[AuditEntry]:
        """Those that were counted for a minute, each with how many there were."""
        found = []
        for key, counted in list(self._known.items()):
            if now - counted.since < EACH_S:
                continue
            if counted.times:
                found.append(msgspec.structs.replace(counted.last, times=counted.times))
                self._known[key] = _Counted(now, counted.last)
            else:
                del self._known[key]
        return found

    def rest(self) -> list[AuditEntry]:
        """All that was counted and not written, at the end."""
        return self.due(float("inf"))
