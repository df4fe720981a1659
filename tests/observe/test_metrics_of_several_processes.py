"""The metrics of several processes, shown as those of one."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.observe.export import Export, export, show_elsewhere, together
from gateway.observe.metrics import GatewayMetrics, Registry


def process() -> tuple[GatewayMetrics, Registry]:
    registry = Registry()
    return GatewayMetrics(registry), registry


def value(registry: Registry, line: str) -> float:
    found = [text for text in registry.render().decode().splitlines() if text.startswith(line + " ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.001, 50)), max_size=40))
def test_the_sum_is_what_one_process_would_have_counted(requests: list[tuple[int, float]]) -> None:
    alone, alone_registry = process()
    workers = [process() for _ in range(3)]
    for number, seconds in requests:
        for metrics in (alone, workers[number][0]):
            metrics.requests.inc("acme", "box", "none")
            metrics.request_seconds.observe(seconds, "box")
    watcher, registry = process()
    # As they come over a line.
    exports = [msgspec.msgpack.decode(msgspec.msgpack.encode(export(one)), type=Export) for _, one in workers]
    show_elsewhere(registry, together(exports))
    assert watcher.requests.value("acme", "box", "none") == len(requests)
    assert watcher.request_seconds.count("box") == len(requests)
    for line in (
        'failsoft_requests_total{customer="acme",reason="none",served_by_kind="box"}',
        'failsoft_request_seconds_bucket{le="1.0",served_by_kind="box"}',
        'failsoft_request_seconds_bucket{le="+Inf",served_by_kind="box"}',
        'failsoft_request_seconds_count{served_by_kind="box"}',
    ):
        assert value(registry, line) == value(alone_registry, line)


def test_what_a_process_counted_stays_when_it_has_ended_and_what_it_had_does_not() -> None:
    metrics, worker = process()
    metrics.requests.inc("acme", "box", "none")
    metrics.pool_connections.set(3, "box:a", "busy")
    metrics.policy_version.set(7)
    found = export(worker)
    assert "failsoft_policy_version" not in found.gauges, "each process has the same one"
    watcher, registry = process()
    watcher.pool_connections.set(1, "box:a", "busy")
    show_elsewhere(registry, found)
    assert watcher.pool_connections.value("box:a", "busy") == 4
    show_elsewhere(registry, found.lasting())
    assert watcher.pool_connections.value("box:a", "busy") == 1
    again, started_again = process()
    again.requests.inc("acme", "box", "none")
    show_elsewhere(registry, together([found.lasting(), export(started_again)]))
    assert watcher.requests.value("acme", "box", "none") == 2
