"""The last good version on disk, and which stores were ever seen filled: what a restarted gateway still knows.

The file is one line with the SHA-256 of all that follows, one line of JSON, and the version's document. It is replaced
whole, so that a crash leaves the old one or the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from gateway.errors import StoreCorrupt
from gateway.policy.durable_file import replace_file
from gateway.policy.state_dir import SNAPSHOT
from gateway.policy.versions import Head, StoredVersion

MAX_STORES = 32
"""Store ids that are remembered, the latest ones."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a gateway knows without its store.

    ``seen``: the highest version seen of each store, latest store last. ``embedded``: which of those are stores of the
    gateway's own. ``last_good``: the version that was last in force. ``damaged``: there was a snapshot and it could not
    be read, so a store had been seen.
    """

    seen: Mapping[str, int] = field(default_factory=dict)
    last_good: StoredVersion | None = None
    damaged: bool = False
    embedded: frozenset[str] = frozenset()

    def ever_filled(self, *, embedded: bool) -> bool:
        """Whether a store of that kind was ever seen with a version in it.

        A gateway that goes from a folder to Redis has seen its own store filled, which says nothing about the other.
        """
        return self.damaged or any((store_id in self.embedded) == embedded for store_id in self.seen)

    def having_seen(self, head: Head, *, embedded: bool) -> Memory:
        """With ``head`` among the seen."""
        others = {store_id: version for store_id, version in self.seen.items() if store_id != head.store_id}
        kept = dict(list(others.items())[-(MAX_STORES - 1) :])
        kept[head.store_id] = max(head.version, self.seen.get(head.store_id, 0))
        own = self.embedded | {head.store_id} if embedded else self.embedded - {head.store_id}
        return replace(self, seen=kept, embedded=own & kept.keys())

    def in_force(self, version: StoredVersion) -> Memory:
        """With ``version``, which was seen, as the last good one."""
        return replace(self, last_good=version, damaged=False)


class _Line(msgspec.Struct, kw_only=True):
    format: int
    seen: dict[str, int]
    embedded: list[str] = []
    store_id: str = ""
    version: int = 0
    digest: str = ""
    created: int = 0
    note: str = ""
    author: str = ""


class Snapshot:
    """The file in ``state_dir``. Its methods block."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / SNAPSHOT

    def read(self) -> Memory:
        """What was written last; empty where nothing was. Raises StoreCorrupt when it is damaged, OSError."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return Memory()
        checksum, _, rest = raw.partition(b"\n")
        if hashlib.sha256(rest).hexdigest().encode() != checksum:
            raise StoreCorrupt(f"{self.path} is damaged: its checksum does not match")
        text, _, document = rest.partition(b"\n")
        try:
            line = msgspec.json.decode(text, type=_Line)
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"{self.path} is damaged: {error}") from None
        if line.format != 1:
            raise StoreCorrupt(f"{self.path} has format {line.format}, and this release reads format 1")
        if not line.version:
            return Memory(line.seen, embedded=frozenset(line.embedded))
        head = Head(line.store_id, line.version, line.digest)
        good = StoredVersion(head, line.created, line.note, line.author, document).checked()
        return Memory(line.seen, good, embedded=frozenset(line.embedded))

    def write(self, memory: Memory) -> None:
        """Replace the file, or leave it as it is. Raises OSError."""
        line = _Line(format=1, seen=dict(memory.seen), embedded=sorted(memory.embedded))
        document = b""
        if (good := memory.last_good) is not None:
            line.store_id, line.version, line.digest = good.head.store_id, good.head.version, good.head.digest
            line.created, line.note, line.author = good.created_s, good.note, good.author
            document = good.document
        rest = msgspec.json.encode(line) + b"\n" + document
        content = hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest
        replace_file(self.path, content)
