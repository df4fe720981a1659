"""Who changed what, from where and when, as a capped stream in Redis that all gateways and commands append to.

``{failsoft}:audit``
    stream: one entry an act, whose one field ``act`` is an :class:`AuditEntry` as JSON; about the last :data:`KEPT`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from gateway.policy.redis_link import PREFIX, RedisLink

AUDIT_KEY = PREFIX + "audit"

KEPT = 10_000
"""Entries; Redis trims them in whole nodes, so that there may be a hundred more."""

LONGEST_VALUE = 1000
"""Characters of one field: who may change things may also send nonsense."""

CLOCKS_S = 300.0
"""How far the clocks of gateways and store may be apart for `--since` to miss nothing."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One act. ``at``: Unix time, by the clock of who wrote it down."""

    at: float
    who: str = ""
    """The admin token's name, or who applied policies; empty where the token was none."""
    user: str = ""
    """Whoever the client says it is, where it used a token."""
    what: str
    """``POST /admin/boxes/a/drain``, ``policies: version 3``."""
    outcome: str
    """An HTTP status, or ``done``."""
    where: str = ""
    """The client's address."""
    parameters: str = ""
    """JSON: what was sent with it."""
    gateway: str = ""
    """Which gateway was asked; empty where a command wrote to the store itself."""
    id: str = ""
    """Makes an entry that was written twice, as its first answer was lost, count once."""
    times: int = 1
    """How often the same happened since the last such entry: refusals are written once a minute."""

    def as_json(self) -> dict[str, Any]:
        """For people and tools."""
        found = {name: value for name, value in msgspec.structs.asdict(self).items() if name != "id"}
        return found | {"at": round(self.at, 3)}


def fields(entry: AuditEntry) -> dict[str, bytes]:
    """As a stream has it: one field, as the client takes its time over each. Texts are cut to :data:`LONGEST_VALUE`."""
    known = msgspec.structs.asdict(entry)
    return {
        "act": msgspec.json.encode({k: v[:LONGEST_VALUE] if isinstance(v, str) else v for k, v in known.items() if v})
    }


class AuditStream:
    """The stream behind ``link``. Every method raises only :class:`~gateway.errors.StoreError`."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Write them all, or, where the store fails, maybe some."""
        async with self._link.mapped(), self._link.redis.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.xadd(AUDIT_KEY, cast("Any", fields(entry)), maxlen=KEPT, approximate=True)
            await pipe.execute()

    async def read(self, *, since_s: float = 0.0, limit: int = 1000) -> list[AuditEntry]:
        """The latest ``limit`` entries not older than ``since_s`` (Unix time), oldest first."""
        oldest = f"{int(max(0.0, since_s - CLOCKS_S) * 1000)}-0"
        async with self._link.mapped():
            found = await self._link.redis.xrevrange(AUDIT_KEY, "+", oldest, count=limit)
        return together([entry for _, raw in cast("Any", found) if (entry := _read(raw)) is not None], since_s=since_s)


def together(entries: Sequence[AuditEntry], *, since_s: float = 0.0) -> list[AuditEntry]:
    """Each act once, in order of time."""
    once = {entry.id or f"{entry.at} {entry.what}": entry for entry in entries if entry.at >= since_s}
    return sorted(once.values(), key=lambda entry: entry.at)


def _read(raw: Mapping[bytes, bytes]) -> AuditEntry | None:
    """None for what somebody else has put there."""
    try:
        return msgspec.json.decode(raw.get(b"act", b""), type=AuditEntry)
    except msgspec.DecodeError:
        return None
