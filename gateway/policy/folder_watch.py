"""Notices when the files of a policy folder have changed and come to rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from gateway.policy.validate import policy_files

POLL_S = 0.5

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Path, modification time in nanoseconds, size and inode of each file."""


def fingerprint(folder: Path) -> Fingerprint:
    """What the folder looks like from outside. A file that goes away meanwhile is left out. Follows links."""
    found = []
    try:
        for path in policy_files(folder):
            try:
                stat = path.stat()
            except OSError:
                continue
            found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    except OSError:
        return ()
    return tuple(found)


async def changes(folder: Path, since: Fingerprint, poll_s: float = POLL_S) -> AsyncGenerator[Fingerprint, None]:
    """Each look of the folder that is another than the one before and was the same at two polls in a row."""
    last = moving = since
    while True:
        await asyncio.sleep(poll_s)
        now = await asyncio.to_thread(fingerprint, folder)
        if now != last and now == moving:
            last = now
            yield now
        moving = now
