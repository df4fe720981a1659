"""The gateway's own count of what runs at one box, which no metric of the box's gives as soon or by adapter."""

from __future__ import annotations


class InFlight:
    """Attempts that were sent and have not ended. ``silent``: the streams among them that show no content yet."""

    __slots__ = ("_by_adapter", "silent", "total")

    def __init__(self) -> None:
        self._by_adapter: dict[str | None, int] = {}
        self.total = 0
        self.silent = 0

    def began(self, adapter: str | None, *, silent: bool) -> None:
        """An attempt for ``adapter`` (None: for the base) was sent; ``silent``: it is a stream."""
        self._by_adapter[adapter] = self._by_adapter.get(adapter, 0) + 1
        self.total += 1
        self.silent += silent

    def answered(self) -> None:
        """One of the silent ones shows its first content."""
        self.silent -= 1

    def ended(self, adapter: str | None, *, silent: bool) -> None:
        """An attempt is over. ``silent``: it is a stream that has shown no content."""
        left = self._by_adapter[adapter] - 1
        if left:
            self._by_adapter[adapter] = left
        else:
            del self._by_adapter[adapter]
        self.total -= 1
        self.silent -= silent

    def of(self, adapter: str | None) -> int:
        """How many there are for one adapter."""
        return self._by_adapter.get(adapter, 0)

    @property
    def distinct(self) -> int:
        """How many adapters have any; the base is none."""
        return len(self._by_adapter) - (None in self._by_adapter)

    @property
    def adapters(self) -> dict[str, int]:
        """How many there are for each adapter that has any; the base is none."""
        return {name: count for name, count in self._by_adapter.items() if name is not None}
