"""What processes cost, from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> set[int]:
    """That process and all that descend from it and still run."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found, grew = {root}, True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grew = bool(more)
    return found


def cpu_s(root: int) -> float:
    """User and system time of a process, its descendants, and those of its children that have ended; in seconds.

    Fields 14 to 17 of /proc/PID/stat (proc(5)), in ticks of 10 ms on nearly every machine.
    """
    total = 0
    for pid in tree(root):
        if fields := _stat(pid):
            total += sum(int(ticks) for ticks in fields[11:15])
    return total * TICK_S


def _stat(pid: int) -> list[str]:
    """The fields after the program's name, which may hold blanks; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
