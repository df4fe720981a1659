"""Rendezvous hashing: the order in which an adapter prefers boxes, from nothing but their names."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def rendezvous(adapter: str, boxes: Iterable[str]) -> tuple[str, ...]:
    """``boxes`` in the order of ``adapter``'s preference (Thaler and Ravishankar, 1998).

    When a box comes or goes, only the adapters that it wins or held change their first one.
    """
    return tuple(sorted(boxes, key=lambda box: _weight(adapter, box), reverse=True))


def _weight(adapter: str, box: str) -> bytes:
    return blake2b(f"{adapter}\0{box}".encode(), digest_size=8).digest()
