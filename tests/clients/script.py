"""A client's script, as a process that does one scenario after the other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

Seen = dict[str, Any]


class Script:
    """Started at once. What it writes to standard error is shown where it says nothing else."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self._home = tempfile.TemporaryDirectory()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**variables, "HOME": self._home.name},
        )

    @property
    def running(self) -> bool:
        """Whether it can be told something."""
        return self._process.poll() is None

    async def do(self, told: Mapping[str, Any], *, within_s: float) -> Seen:
        """What it has seen of what it was told. It does not outlive a wait that is given up."""
        answered = False
        try:
            async with asyncio.timeout(within_s):
                line = await asyncio.to_thread(self._exchange, json.dumps(told).encode())
            answered = line.startswith(b"{")
        finally:
            if not answered:
                self._process.kill()
        if not answered:
            self._process.wait()
            self._errors.seek(0)
            raise AssertionError(f"no answer: {(line + self._errors.read()).decode()[-4000:]}")
        seen: Seen = json.loads(line)
        return seen

    def _exchange(self, line: bytes) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return b""
        return self._process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        # Also waits for it.
        self._process.communicate()
        self._errors.close()
        self._home.cleanup()
