"""The orders on disk: what a gateway that starts again while the store is away goes on with until it hears it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.errors import StoreCorrupt
from gateway.orders.order import Order
from gateway.policy.durable_file import replace_file
from gateway.policy.state_dir import ORDERS


@dataclass(frozen=True, slots=True)
class Remembered:
    """``orders`` that would still run, also those that were taken back. ``ahead_ms``: how far the store's clock, by
    which they end, was ahead of this machine's.
    """

    orders: Sequence[Order] = ()
    ahead_ms: int = 0


class _File(msgspec.Struct, kw_only=True):
    format: int
    store: str
    ahead_ms: int
    orders: list[Order]


class OrderSnapshot:
    """The file in ``state_dir``. ``store``: whose orders they are, its address; another's are not taken for them.

    Its methods block.
    """

    def __init__(self, state_dir: Path, store: str) -> None:
        self.path = state_dir / ORDERS
        self._store = store

    def read(self) -> Remembered:
        """What was written last; nothing where nothing was. Raises StoreCorrupt when it is damaged, OSError."""
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=_File)
        except FileNotFoundError:
            return Remembered()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreCorrupt(f"{self.path} is damaged: {error}") from None
        if found.format != 1:
            raise StoreCorrupt(f"{self.path} has format {found.format}, and this release reads format 1")
        return Remembered(found.orders, found.ahead_ms) if found.store == self._store else Remembered()

    def write(self, remembered: Remembered) -> None:
        """Replace the file, or leave it as it is. Raises OSError."""
        content = _File(
            format=1, store=self._store, ahead_ms=remembered.ahead_ms, orders=list(remembered.orders)
        )  # fmt: skip
        replace_file(self.path, msgspec.json.encode(content))
