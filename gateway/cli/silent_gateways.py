"""Gateways that the store does not hear, as the admin API names them, in words."""

from __future__ import annotations

import sys
from typing import Any


def last_heard(gateway: dict[str, Any]) -> str:
    """``gw-2:8080 was last heard of 40 s ago, at version 9``"""
    version = gateway["policy_version"]
    at = "" if version is None else f", at version {version}"
    return f"{gateway['name']} was last heard of {gateway['silent_s']:.0f} s ago{at}"


def warn_of_silent(gateways: list[dict[str, Any]]) -> None:
    """On stderr, of an order that all gateways are to follow."""
    for gateway in gateways:
        sys.stderr.write(
            f"failsoft: {last_heard(gateway)}: it may not follow until the store hears it again. "
            "If it lives, tell it with --url.\n"
        )
