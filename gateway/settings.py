"""What `failsoft serve` was told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.observe.log import LogFormat


@dataclass(frozen=True, slots=True)
class Settings:
    """What `failsoft serve` was told. ``drain_s``: how long running answers may go on after SIGTERM. ``workers``: the
    processes that answer clients; with more than one, this one watches over them. ``cors_origins``: whose pages may ask
    ``/v1``."""

    policies: Path | None
    redis_url: str | None
    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    admin_port: int | None = None
    admin_token: str | None = None
    workers: int = 1
    drain_s: float = 30.0
    log_format: LogFormat = "human"
    cors_origins: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
