"""Counters, gauges and histograms in plain Python, cheap enough for the request path, rendered as Prometheus text.

A series is one entry of a dictionary, keyed by its tuple of label values, so that counting costs about 0.2 µs; one
event loop is the only writer, so there is no lock. prometheus_client (whose own counters take a lock and a look-up
of the child, several times that) does the text format only: names, escaping, ``HELP`` and ``TYPE`` lines.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

LabelValues = tuple[str, ...]

Spread = tuple[tuple[int, ...], float]
"""Of a histogram's series: how many values fell into each bucket, the infinite one last, and their sum."""

NO_SPREAD: Spread = ((), 0.0)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The media type of what :meth:`Registry.render` gives."""


class Instrument(Protocol):
    """Anything that can be rendered."""

    name: str

    def family(self) -> Metric:
        """The series as prometheus_client's type."""


InstrumentT = TypeVar("InstrumentT", bound=Instrument)


class _Series:
    """What counter, gauge and histogram share: a name, a help text, label names, and the check of a new series."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help
        self.labels = tuple(labels)

    def check(self, label_values: LabelValues) -> None:
        """Raise ValueError unless there is one value for each label."""
        if len(label_values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {label_values}")


class Counter(_Series):
    """A number that only grows. ``name`` ends in ``_total``."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels)
        self._values: dict[LabelValues, float] = {} if labels else {(): 0}
        self.elsewhere: Mapping[LabelValues, float] = {}
        """What other processes counted, which everybody who reads it is shown as well."""

    def inc(self, *label_values: str, by: float = 1) -> None:
        """Add ``by``. Raises ValueError when the number of label values is wrong."""
        try:
            self._values[label_values] += by
        except KeyError:
            self.check(label_values)
            self._values[label_values] = by

    def value(self, *label_values: str) -> float:
        """What was counted so far under these labels."""
        return self._values.get(label_values, 0) + self.elsewhere.get(label_values, 0)

    def items(self) -> Iterable[tuple[LabelValues, float]]:
        """All series, as pairs of label values and number."""
        return tuple(_sums(self._values, self.elsewhere).items())

    def family(self) -> Metric:
        """The series as prometheus_client's type."""
        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for label_values, number in self.items():
            family.add_metric(label_values, number)
        return family


class Gauge(_Series):
    """A number that goes up and down. ``summed``: each worker process has its own part of it."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), *, summed: bool = False) -> None:
        super().__init__(name, help, labels)
        self.summed = summed
        self._values: dict[LabelValues, float] = {} if labels else {(): 0}
        self.elsewhere: Mapping[LabelValues, float] = {}
        """What other processes have."""

    def set(self, value: float, *label_values: str) -> None:
        """Set the series to ``value``."""
        self.check(label_values)
        self._values[label_values] = value

    def add(self, by: float, *label_values: str) -> None:
        """Add ``by``, which may be negative."""
        try:
            self._values[label_values] += by
        except KeyError:
            self.check(label_values)
            self._values[label_values] = by

    def remove(self, *label_values: str) -> None:
        """Forget one series, if it is there."""
        self._values.pop(label_values, None)

    def replace(self, values: Mapping[LabelValues, float]) -> None:
        """Make ``values`` the only series there are."""
        for label_values in values:
            self.check(label_values)
        self._values = dict(values)

    def value(self, *label_values: str) -> float:
        """The number of one series, 0 where there is none."""
        return self._values.get(label_values, 0) + self.elsewhere.get(label_values, 0)

    def items(self) -> Iterable[tuple[LabelValues, float]]:
        """All series, as pairs of label values and number."""
        return tuple(_sums(self._values, self.elsewhere).items())

    def family(self) -> Metric:
        """The series as prometheus_client's type."""
        family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for label_values, number in self.items():
            family.add_metric(label_values, number)
        return family


class Histogram(_Series):
    """How values are spread over ``buckets``: upper bounds, ascending, without the infinite one."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), *, buckets: Sequence[float]) -> None:
        super().__init__(name, help, labels)
        if not buckets or list(buckets) != sorted(set(buckets)):
            raise ValueError(f"{name}: buckets have to ascend")
        self.buckets = tuple(float(bound) for bound in buckets)
        self._counts: dict[LabelValues, list[int]] = {}
        self._sums: dict[LabelValues, float] = {}
        self.elsewhere: Mapping[LabelValues, Spread] = {}
        """What other processes observed."""

    def observe(self, value: float, *label_values: str) -> None:
        """Count one value."""
        try:
            counts = self._counts[label_values]
        except KeyError:
            self.check(label_values)
            counts = self._counts[label_values] = [0] * (len(self.buckets) + 1)
            self._sums[label_values] = 0.0
        counts[bisect_left(self.buckets, value)] += 1
        self._sums[label_values] += value

    def count(self, *label_values: str) -> int:
        """How many values were observed under these labels."""
        return sum(self._counts.get(label_values, ())) + sum(self.elsewhere.get(label_values, NO_SPREAD)[0])

    def items(self) -> Iterable[tuple[LabelValues, Spread]]:
        """All series, as pairs of label values and what was observed."""
        own = {labels: (tuple(counts), self._sums[labels]) for labels, counts in self._counts.items()}
        return tuple(spreads((own, self.elsewhere)).items())

    def family(self) -> Metric:
        """The series as prometheus_client's type."""
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        bounds = [*(str(bound) for bound in self.buckets), "+Inf"]
        for label_values, (counts, total) in self.items():
            family.add_metric(label_values, list(_cumulated(bounds, counts)), total)
        return family


def spreads(parts: Iterable[Mapping[LabelValues, Spread]]) -> dict[LabelValues, Spread]:
    """What several processes observed, together."""
    added: dict[LabelValues, Spread] = {}
    for part in parts:
        for label_values, (counts, total) in part.items():
            if (before := added.get(label_values)) is None:
                added[label_values] = counts, total
            else:
                pairs = zip(before[0], counts, strict=True)
                added[label_values] = tuple(one + other for one, other in pairs), before[1] + total
    return added


def _sums(own: Mapping[LabelValues, float], elsewhere: Mapping[LabelValues, float]) -> Mapping[LabelValues, float]:
    if not elsewhere:
        return own
    return {labels: own.get(labels, 0) + elsewhere.get(labels, 0) for labels in {**own, **elsewhere}}


def _cumulated(bounds: Sequence[str], counts: Sequence[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        yield bound, total


class Registry(Collector):
    """All metrics of one process. ``process``: also the process's own CPU, memory and file descriptors."""

    def __init__(self, *, process: bool = False) -> None:
        self._instruments: dict[str, Instrument] = {}
        self._refreshers: list[Callable[[], None]] = []
        self._prometheus = CollectorRegistry(auto_describe=False)
        self._prometheus.register(self)
        if process:
            ProcessCollector(registry=self._prometheus)

    def add(self, instrument: InstrumentT) -> InstrumentT:
        """Register ``instrument`` and hand it back. Raises ValueError when its name is taken."""
        if instrument.name in self._instruments:
            raise ValueError(f"{instrument.name} is registered already")
        self._instruments[instrument.name] = instrument
        return instrument

    def all(self) -> Iterable[Instrument]:
        """Every instrument, up to date."""
        for refresh in self._refreshers:
            refresh()
        return tuple(self._instruments.values())

    def counter(self, name: str) -> Counter:
        """A registered counter. Raises KeyError where there is none of that name."""
        instrument = self._instruments[name]
        if not isinstance(instrument, Counter):
            raise KeyError(name)
        return instrument

    def before_render(self, refresh: Callable[[], None]) -> None:
        """Call ``refresh`` before each rendering: for gauges that mirror what something else already counts."""
        self._refreshers.append(refresh)

    def collect(self) -> Iterable[Metric]:
        """prometheus_client's side of the registry."""
        return [instrument.family() for instrument in self._instruments.values()]

    def render(self) -> bytes:
        """All metrics in Prometheus's text format 0.0.4."""
        self.all()
        return generate_latest(self._prometheus)
