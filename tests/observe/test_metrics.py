"""Metrics: counted in plain dictionaries, rendered as Prometheus understands them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.observe.metrics import Counter, GatewayMetrics, Gauge, Histogram, Registry

Sample = tuple[str, tuple[tuple[str, str], ...]]


def scrape(registry: Registry) -> dict[Sample, float]:
    """What a Prometheus server reads off the text."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(registry.render().decode())
        for sample in family.samples
    }


def test_a_counter_adds_up_under_its_labels() -> None:
    registry = Registry()
    counter = registry.add(Counter("x_total", "help", ("who",)))
    counter.inc("a")
    counter.inc("a", by=2)
    counter.inc("b")
    assert scrape(registry) == {("x_total", (("who", "a"),)): 3, ("x_total", (("who", "b"),)): 1}
    assert counter.value("a") == 3
    assert counter.value("nobody") == 0


def test_a_metric_without_labels_is_there_from_the_start() -> None:
    registry = Registry()
    registry.add(Counter("x_total", "help"))
    registry.add(Gauge("y", "help"))
    assert scrape(registry) == {("x_total", ()): 0, ("y", ()): 0}


def test_the_wrong_number_of_labels_is_refused_and_leaves_nothing_behind() -> None:
    registry = Registry()
    counter = registry.add(Counter("x_total", "help", ("who",)))
    gauge = registry.add(Gauge("y", "help", ("who",)))
    histogram = registry.add(Histogram("z", "help", ("who",), buckets=(1,)))
    wrong_calls: list[Callable[[], None]] = [
        lambda: counter.inc("a", "b"),
        lambda: counter.inc(),
        lambda: gauge.set(1),
        lambda: gauge.add(1),
        lambda: gauge.replace({("a", "b"): 1}),
        lambda: histogram.observe(1),
    ]
    for wrong in wrong_calls:
        with pytest.raises(ValueError, match="labels"):
            wrong()
    assert scrape(registry) == {}


def test_a_gauge_is_set_moved_replaced_and_forgotten() -> None:
    registry = Registry()
    gauge = registry.add(Gauge("y", "help", ("box",)))
    gauge.set(4, "a")
    gauge.add(-1, "a")
    gauge.add(2, "b")
    assert (gauge.value("a"), gauge.value("b")) == (3, 2)
    gauge.remove("b")
    gauge.remove("never-there")
    assert scrape(registry) == {("y", (("box", "a"),)): 3}
    gauge.replace({("c",): 9})
    assert scrape(registry) == {("y", (("box", "c"),)): 9}


def test_histogram_buckets_are_cumulative_and_hold_their_upper_bound() -> None:
    registry = Registry()
    histogram = registry.add(Histogram("z_seconds", "help", buckets=(0.1, 1)))
    for value in (0.1, 0.5, 1.0, 7.0):
        histogram.observe(value)
    assert histogram.count() == 4
    assert scrape(registry) == {
        ("z_seconds_bucket", (("le", "0.1"),)): 1,
        ("z_seconds_bucket", (("le", "1.0"),)): 3,
        ("z_seconds_bucket", (("le", "+Inf"),)): 4,
        ("z_seconds_count", ()): 4,
        ("z_seconds_sum", ()): pytest.approx(8.6),
    }


def test_buckets_that_do_not_ascend_are_refused() -> None:
    for buckets in ((), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="ascend"):
            Histogram("z", "help", buckets=buckets)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_text_survives_as_a_label_value(text: str) -> None:
    registry = Registry()
    registry.add(Gauge("y", "help", ("who",))).set(1, text)
    # The line separators that str.splitlines knows and the text format does not are the parser's problem, not ours.
    if text.isprintable() or text in {"\n", '"', "\\"}:
        assert scrape(registry) == {("y", (("who", text),)): 1}
    assert registry.render().count(b"\n") == 3


def test_a_name_is_taken_once() -> None:
    registry = Registry()
    registry.add(Gauge("y", "help"))
    with pytest.raises(ValueError, match="registered already"):
        registry.add(Gauge("y", "other help"))


def test_gauges_that_mirror_something_are_refreshed_before_each_rendering() -> None:
    registry = Registry()
    gauge = registry.add(Gauge("y", "help"))
    registry.before_render(lambda: gauge.add(1))
    assert scrape(registry)["y", ()] == 1
    assert scrape(registry)["y", ()] == 2


def test_the_gateways_metrics_carry_its_name_and_the_process_is_measured() -> None:
    registry = Registry(process=True)
    metrics = GatewayMetrics(registry)
    metrics.requests.inc("acme", "provider", "backend_down")
    metrics.time_to_first_content_seconds.observe(0.2, "box")
    text = registry.render().decode()
    assert 'failsoft_requests_total{customer="acme",reason="backend_down",served_by_kind="provider"} 1.0' in text
    assert "process_cpu_seconds_total" in text
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(("failsoft_", "process_"))
        assert family.documentation
