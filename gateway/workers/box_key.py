"""How two processes name the same box: a name alone may have meant another server under an earlier policy."""

from __future__ import annotations

import hashlib

from gateway.policy.compiled import BoxSpec


def box_key(spec: BoxSpec, base_model: str) -> str:
    """The name, and a digest of all by which :class:`gateway.fleet.fleet.Fleets` tells boxes apart; no secret."""
    parts = repr((spec.fleet, spec.name, spec.url, spec.api_key, spec.unavailable, base_model))
    return f"{spec.name}#{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
