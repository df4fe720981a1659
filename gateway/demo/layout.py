"""Where a demo keeps its things: one folder, for its owner only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LONGEST_SOCKET_PATH = 100
"""Bytes. A Unix socket's address has room for 104 (macOS) to 108 (Linux), the final zero included."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one demo below ``root``."""

    root: Path

    @property
    def control(self) -> Path:
        """The socket on which a running demo takes commands."""
        return self.root / "control"

    @property
    def policies(self) -> Path:
        """The policy folder: written anew by each demo, and watched by its gateway."""
        return self.root / "policies"

    @property
    def keys(self) -> Path:
        """The customers' API keys, which are made for one run, for `failsoft load`; there while the demo runs."""
        return self.root / "keys.yaml"

    @property
    def address(self) -> Path:
        """Where the gateway answers, beside ``keys``."""
        return self.root / "address"

    @property
    def gateway(self) -> Path:
        """The gateway's state: its embedded store and its snapshot."""
        return self.root / "gateway"

    @property
    def box_replies(self) -> Path:
        """What simulated boxes say to the demo's question."""
        return self.root / "box-replies.jsonl"

    @property
    def provider_replies(self) -> Path:
        """What the stand-in provider says to it."""
        return self.root / "provider-replies.jsonl"

    def log(self, name: str) -> Path:
        """What the process of that name printed."""
        return self.root / "logs" / f"{name}.log"

    def make(self) -> None:
        """Create the folders, closed to everyone else, and empty logs. Raises OSError."""
        for folder in (self.root, self.policies, self.policies / "customers", self.gateway, self.root / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        for log in (self.root / "logs").glob("*.log"):
            log.unlink()


def default_root(environment: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_STATE_HOME/failsoft/demo``, as the XDG base directory specification has it."""
    home = environment.get("XDG_STATE_HOME") or ""
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "failsoft" / "demo"
