"""What was made of customers' files by an earlier command on this machine, by the digest of each file.

Most of 10,000 files are as they were at the last `apply`. An entry holds for the very text and the very code that read
it; that the files fit together is looked at every time. A cache: losing it costs time.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import pydantic


class Entry(NamedTuple):
    """What was made of a file: the customer's ``document``; ``in_order``: nothing was to be said of it by itself."""

    document: bytes
    in_order: bool


ENTRIES = dict[bytes, Entry]


class ReadBefore:
    """The cache of one folder of policies, under ``$XDG_CACHE_HOME``. A file that cannot be used is as one that is not
    there. ``beside``: the digest of what else entries depend on (:class:`~gateway.policy.alone.Alone`).
    """

    def __init__(self, folder: Path, env: Mapping[str, str], beside: bytes) -> None:
        self._made_by = _code() + b" " + beside
        # Who has no home has no cache: under this nothing can be read or written.
        home = env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or os.devnull) / ".cache"
        name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
        self.path = Path(home) / "failsoft" / f"customers-{name}"

    def read(self) -> Mapping[bytes, Entry]:
        """By the SHA-256 of the files that they were made of."""
        try:
            made_by, checksum, content = self.path.read_bytes().split(b"\n", 2)
            if made_by == self._made_by and checksum == _digest(content):
                return msgspec.msgpack.decode(content, type=ENTRIES)
        except (OSError, ValueError, msgspec.DecodeError):
            return {}
        return {}

    def write(self, entries: Mapping[bytes, Entry]) -> None:
        """Keep these and no others, where there is a place for them."""
        content = msgspec.msgpack.encode(entries)
        temporary = self.path.with_name(f"{self.path.name}.{secrets.token_hex(6)}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(b"\n".join((self._made_by, _digest(content), content)))
            temporary.replace(self.path)
        except OSError:
            temporary.unlink(missing_ok=True)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _code() -> bytes:
    """Of all that decides what becomes of a file."""
    digest = hashlib.sha256(pydantic.VERSION.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest().encode()
