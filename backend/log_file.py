"""What a server prints, kept in a file of bounded size and read as it grows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 64 * 1024 * 1024
_READ_AT_ONCE: Final = 256 * 1024


class LogFile:
    """A file that another process appends to. Opened for our eyes only, as it may hold what customers wrote."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._read_to = 0
        self._rest = b""

    def open(self) -> None:
        """Make the file and its folder. What was in it before is not read. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        self.trim()
        self._read_to, self._rest = self.path.stat().st_size, b""

    def new_lines(self) -> list[str]:
        """Whole lines that came since the last call; a progress bar's states are lines too. Raises OSError."""
        with self.path.open("rb") as log:
            log.seek(self._read_to)
            chunk = log.read(_READ_AT_ONCE)
        self._read_to += len(chunk)
        parts = (self._rest + chunk).replace(b"\r", b"\n").split(b"\n")
        self._rest = parts.pop()[-_READ_AT_ONCE:]
        return [part.decode(errors="replace") for part in parts if part]

    def position(self) -> int:
        """Where the file ends now, in bytes."""
        return self.path.stat().st_size

    def since(self, position: int) -> str:
        """What was appended after ``position``, at most the last 256 KiB of it; all there is where it was trimmed."""
        size = self.path.stat().st_size
        start = max(position if position <= size else 0, size - _READ_AT_ONCE)
        with self.path.open("rb") as log:
            log.seek(start)
            return log.read(_READ_AT_ONCE).decode(errors="replace")

    def trim(self) -> bool:
        """Move what is there to ``NAME.1`` once it is too much; whether it was. Raises OSError.

        The file itself is emptied and not replaced, as its writer has it open for appending. What is written between
        the two is lost. Where there is no room for a copy, there is none: the server needs the disk more.
        """
        if self.path.stat().st_size <= self._max_bytes:
            return False
        older = self.path.with_name(self.path.name + ".1")
        try:
            shutil.copyfile(self.path, older)
            older.chmod(0o600)
        except OSError:
            older.unlink(missing_ok=True)
            raise
        finally:
            os.truncate(self.path, 0)
        self._read_to, self._rest = 0, b""
        return True
