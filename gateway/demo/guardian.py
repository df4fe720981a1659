"""Ends the demo's processes when the demo is killed and cannot do it itself.

A small program reads from a pipe which process groups to watch, and kills those that are left when the pipe closes,
which it does however the demo ends. Linux's parent-death signal would not do: it reaches children only, and the engine
of a vLLM server is a grandchild that outlives its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys


class Guardian:
    """The demo's end of the pipe. Process groups are named by their ids."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the program, in a session of its own, so that Ctrl-C does not reach it. Raises OSError."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", __file__, stdin=asyncio.subprocess.PIPE, start_new_session=True
        )

    def watch(self, group: int) -> None:
        """Kill that group should the demo die."""
        self._say(f"+{group}\n")

    def release(self, group: int) -> None:
        """That group has ended; its id may be somebody else's soon."""
        self._say(f"-{group}\n")

    async def close(self) -> None:
        """Close the pipe, and wait until the program has ended with whatever was left."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()

    def _say(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line.encode())


def keep_watch() -> None:
    """The program: read to the end of standard input, then kill."""
    groups: set[int] = set()
    for line in sys.stdin:
        sign, group = line[0], int(line[1:])
        (groups.add if sign == "+" else groups.discard)(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    keep_watch()
