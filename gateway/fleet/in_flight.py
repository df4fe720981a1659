"""The gateway's own count of what runs at one box, which no metric of the box's gives as soon or by adapter."""

from __future__ import annotations

from collections.abc import Mapping

Counts = Mapping[str | None, int]
"""By adapter; None is the base. None of them is zero."""


class InFlight:
    """Attempts that were sent and have not ended. ``silent``: the streams among them that show no content yet.

    Where several processes ask the same box, those of the others are counted in.
    """

    __slots__ = ("_by_adapter", "_others", "_others_silent", "silent", "total")

    def __init__(self) -> None:
        self._by_adapter: dict[str | None, int] = {}
        self._others: Counts = {}
        self._others_silent = 0
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

    @property
    def own(self) -> tuple[Counts, int]:
        """This process's own by adapter, and how many of them are silent streams."""
        others = self._others
        own = {name: left for name, count in self._by_adapter.items() if (left := count - others.get(name, 0))}
        return own, self.silent - self._others_silent

    def follow(self, others: Counts, silent: int) -> None:
        """These are what the other processes have in flight now, ``silent`` of them streams without content yet."""
        by_adapter, before = self._by_adapter, self._others
        for name in before.keys() | others.keys():
            count = by_adapter.get(name, 0) + others.get(name, 0) - before.get(name, 0)
            if count:
                by_adapter[name] = count
            else:
                by_adapter.pop(name, None)
        self.total += sum(others.values()) - sum(before.values())
        self.silent += silent - self._others_silent
        self._others, self._others_silent = dict(others), silent

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
