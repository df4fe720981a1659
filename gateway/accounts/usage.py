"""What was used, by customer, kind of target and reason; and what customers have spent at hosted providers today. Pure.

Amounts of money are whole nano-USD: a token costs some hundred of them, and sums of integers lose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.accounts.exchange import Batch, Row

COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "nano_usd", "estimated", "unpriced")
"""``cached_tokens`` are part of the prompt's. ``estimated``: requests whose answer did not say what it took;
``unpriced``: those of a provider whose price is not known."""

NANO = 1_000_000_000

SYNTHETIC_DRILL = "synthetic_drill"
"""The reason of what the gateway asks by itself, to prove a fallback, beside ``drill`` of customers' requests."""

Cell = list[int]
Key = tuple[str, str, str]


class Usage:
    """Since the last batch, since the start (``total``), and the spend of ``day`` (ISO, UTC) of all gateways."""

    def __init__(self, day: str) -> None:
        self.day = day
        self.total: dict[Key, Cell] = {}
        self._told: dict[Key, Cell] = {}
        self._batch: Batch | None = None
        self._number = 0
        self._elsewhere: dict[str, int] = {}
        self._unheard: dict[str, int] = {}
        self._pending: dict[str, int] = {}

    def cell(self, customer: str, kind: str, reason: str) -> Cell:
        """Where such requests are counted; the amounts are in the order of :data:`COUNTS`."""
        key = (customer, kind, reason)
        cell = self.total.get(key)
        if cell is None:
            cell = self.total[key] = [0] * len(COUNTS)
        return cell

    # Money.

    def spend(self, customer: str, nano_usd: int) -> None:
        """An answer of a hosted provider cost this much."""
        self._unheard[customer] = self._unheard.get(customer, 0) + nano_usd

    def reckon(self, customer: str, nano_usd: int) -> None:
        """An answer that is on its way is reckoned to cost this much; the same below 0 when it has ended."""
        self._pending[customer] = self._pending.get(customer, 0) + nano_usd

    def spent(self, customer: str) -> int:
        """Nano-USD of today, as far as is known."""
        return self._elsewhere.get(customer, 0) + self._unheard.get(customer, 0)

    def committed(self, customer: str) -> int:
        """The same with what is on its way here."""
        return self.spent(customer) + max(0, self._pending.get(customer, 0))

    # The store.

    def roll(self, day: str) -> bool:
        """It is ``day`` now. Whether that is another: nothing was spent on it yet."""
        if day == self.day:
            return False
        # What is not in a batch yet belongs to the day before; it goes out under its name.
        if self._batch is None:
            self._batch = self._cut()
        self.day = day
        self._elsewhere, self._unheard = {}, {}
        return True

    def batch(self) -> Batch | None:
        """What is to be sent now; the same again until it was heard. None where nothing was used."""
        if self._batch is None:
            self._batch = self._cut()
        return self._batch

    def heard(self, number: int, spent: Mapping[str, int]) -> None:
        """The batch of that number is in the store, whose sums are ``spent``."""
        batch = self._batch
        if batch is not None and batch.number == number:
            self._batch = None
            if batch.day == self.day:
                for row in batch.rows:
                    if nano_usd := row.counts[4]:
                        self._elsewhere[row.customer] = self._elsewhere.get(row.customer, 0) + nano_usd
                        self._unheard[row.customer] = self._unheard.get(row.customer, 0) - nano_usd
        for customer, nano_usd in spent.items():
            # A store that was emptied knows less than we do: what was spent stays spent.
            self._elsewhere[customer] = max(self._elsewhere.get(customer, 0), nano_usd)

    def unheard(self) -> None:
        """Whether the batch arrived is not known."""
        if self._batch is not None:
            batch = self._batch
            self._batch = Batch(batch.number, batch.day, batch.rows, again=True)

    def _cut(self) -> Batch | None:
        rows = []
        for (customer, kind, reason), cell in self.total.items():
            told = self._told.get((customer, kind, reason))
            if told is None:
                told = self._told[customer, kind, reason] = [0] * len(COUNTS)
            if told != cell:
                rows.append(Row(customer, kind, reason, tuple(n - t for n, t in zip(cell, told, strict=True))))
                told[:] = cell
        if not rows:
            return None
        self._number += 1
        return Batch(self._number, self.day, rows)
