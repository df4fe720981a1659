"""The metrics of one process, for another that shows the sum of several. Pure but for what it reads and sets.

Of a worker that ended its counts stay in the sum, so that no counter goes back when it is started again.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable, Mapping

import msgspec

from gateway.observe.instruments import Counter, Gauge, Histogram, LabelValues, Registry, Spread, spreads


class Export(msgspec.Struct, frozen=True, array_like=True):
    """Series by metric and label values; only those gauges of which each process has its own part."""

    counters: dict[str, dict[LabelValues, float]] = {}
    histograms: dict[str, dict[LabelValues, Spread]] = {}
    gauges: dict[str, dict[LabelValues, float]] = {}

    def lasting(self) -> Export:
        """What stays of a process that has ended."""
        return Export(self.counters, self.histograms)


def export(registry: Registry) -> Export:
    """What this process has."""
    found = Export({}, {}, {})
    for instrument in registry.all():
        if isinstance(instrument, Counter):
            found.counters[instrument.name] = dict(instrument.items())
        elif isinstance(instrument, Histogram):
            found.histograms[instrument.name] = dict(instrument.items())
        elif isinstance(instrument, Gauge) and instrument.summed:
            found.gauges[instrument.name] = dict(instrument.items())
    return found


def together(exports: Iterable[Export]) -> Export:
    """What several processes have, added up."""
    parts = tuple(exports)
    return Export(
        _added(part.counters for part in parts),
        {
            name: spreads(part.histograms.get(name, {}) for part in parts)
            for name in dict.fromkeys(name for part in parts for name in part.histograms)
        },
        _added(part.gauges for part in parts),
    )


def show_elsewhere(registry: Registry, elsewhere: Export) -> None:
    """Have ``registry`` show these beside its own."""
    for instrument in registry.all():
        if isinstance(instrument, Counter):
            instrument.elsewhere = elsewhere.counters.get(instrument.name, {})
        elif isinstance(instrument, Histogram):
            instrument.elsewhere = elsewhere.histograms.get(instrument.name, {})
        elif isinstance(instrument, Gauge):
            instrument.elsewhere = elsewhere.gauges.get(instrument.name, {})


def _added(parts: Iterable[Mapping[str, Mapping[LabelValues, float]]]) -> dict[str, dict[LabelValues, float]]:
    added: dict[str, Count[LabelValues]] = {}
    for part in parts:
        for name, series in part.items():
            of_name = added.setdefault(name, Count())
            for label_values, number in series.items():
                of_name[label_values] += number  # type: ignore[assignment]
    return {name: dict(series) for name, series in added.items()}
