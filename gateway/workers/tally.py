"""What all processes have in flight at each box: pure. Reports are absolute, so that one that is lost or told twice
does no harm, and a process that ends takes with it what it had.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.workers.messages import Held

NOTHING = Held()


class Tally:
    """By box and worker."""

    def __init__(self) -> None:
        self._by_box: dict[str, dict[int, Held]] = {}

    def report(self, worker: int, box: str, held: Held) -> None:
        """This is what ``worker`` has at ``box`` now."""
        if not (held.counts or held.streams):
            self._drop(worker, box)
        else:
            self._by_box.setdefault(box, {})[worker] = held

    def forget(self, worker: int) -> tuple[str, ...]:
        """``worker`` has ended: the boxes at which it had something."""
        boxes = tuple(box for box, workers in self._by_box.items() if worker in workers)
        for box in boxes:
            self._drop(worker, box)
        return boxes

    def total(self, box: str, *, but: int | None = None, beside: Held = NOTHING, reading_at: float | None) -> Held:
        """What all workers have at ``box``, all but one where ``but`` is given, and ``beside``.

        Streams that were counted since another reading than that of ``reading_at`` count as sent before it.
        """
        workers = self._by_box.get(box, {})
        return added([beside, *(held for worker, held in workers.items() if worker != but)], reading_at=reading_at)

    def _drop(self, worker: int, box: str) -> None:
        workers = self._by_box.get(box, {})
        workers.pop(worker, None)
        if not workers:
            self._by_box.pop(box, None)


def added(parts: Iterable[Held], *, reading_at: float | None) -> Held:
    """The sum of ``parts``."""
    counts: dict[str | None, int] = {}
    silent = awaited = streams = 0
    for held in parts:
        for adapter, count in held.counts.items():
            counts[adapter] = counts.get(adapter, 0) + count
        silent += held.silent
        awaited += held.awaited
        if held.reading_at == reading_at:
            streams += held.streams
    return Held(counts, silent, awaited, streams, reading_at)
