"""One stored version of the policies: what the store, the snapshot and the follower pass to each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gateway.errors import StoreCorrupt

AT_START = "gateway at start, from a folder"
FROM_FOLDER = "gateway, from its folder"
"""Who wrote a version that nobody applied."""


@dataclass(frozen=True, slots=True)
class Head:
    """Which version it is. Versions count from 1 and compare within one ``store_id``; ``digest`` is the content's."""

    store_id: str
    version: int
    digest: str

    def __str__(self) -> str:
        return f"version {self.version} of store {self.store_id[:8]}"


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A complete version. ``created_s``: Unix time of its ``apply``."""

    head: Head
    created_s: int
    note: str
    author: str
    document: bytes

    @property
    def rank(self) -> tuple[int, int, str]:
        """The order of one store's versions, the same for every gateway: of two contents under one number the one that
        was applied later holds, and in the same second the one of the higher digest.
        """
        return self.head.version, self.created_s, self.head.digest

    def checked(self) -> StoredVersion:
        """Itself, if the document is the one that the digest was made of. Raises StoreCorrupt."""
        if hashlib.sha256(self.document).hexdigest() != self.head.digest:
            raise StoreCorrupt(f"{self.head} is damaged: its content does not match its digest")
        return self
