"""The gauges of all boxes, set when somebody looks at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.fleet.box import Box
from gateway.fleet.homes import Homes
from gateway.observe.metrics import GatewayMetrics

_BREAKER_STATES = ("closed", "open", "half_open")


def show(metrics: GatewayMetrics, boxes: Sequence[Box], homes: Mapping[str, Homes], now: float) -> None:
    """Make ``boxes`` the only ones there are, and ``homes`` those of all fleets.

    What is not known of a box or a fleet, or not any more, is absent and not zero.
    """
    metrics.box_in_flight.replace({(box.name,): box.in_flight for box in boxes})
    metrics.box_limit.replace({(box.name,): box.load.limit.limit for box in boxes})
    metrics.box_slot_share.replace({(box.name,): box.load.slots.slots for box in boxes})
    metrics.box_drained.replace({(box.name,): float(box.duty.drained) for box in boxes})
    metrics.box_state.replace(
        {(box.name, state): float(state == box.breaker.state(now)) for box in boxes for state in _BREAKER_STATES}
    )
    estimates = {(box.name,): box.load.estimate(None, now).ttft_s for box in boxes}
    metrics.box_ttft_estimate_seconds.replace(
        {name: ttft_s for name, ttft_s in estimates.items() if ttft_s is not None}
    )
    _show_readings(metrics, boxes, now)
    metrics.box_slots_held.replace({(box.name,): len(box.load.slots.held) for box in boxes})
    placements = {fleet: found.placement for fleet, found in homes.items()}
    metrics.fleet_predicted_swaps.replace(
        {(fleet,): placement.swaps_per_s for fleet, placement in placements.items() if placement is not None}
    )
    for box in boxes:
        metrics.pool_connections.set(box.pool.idle, f"box:{box.name}", "idle")
        metrics.pool_connections.set(box.pool.in_use, f"box:{box.name}", "busy")


def _show_readings(metrics: GatewayMetrics, boxes: Sequence[Box], now: float) -> None:
    waiting: dict[tuple[str, ...], float] = {}
    usage: dict[tuple[str, ...], float] = {}
    for box in boxes:
        if (reading := box.load.fresh_reading(now)) is None:
            continue
        if reading.waiting_capacity is not None:
            waiting[box.name, "capacity"] = reading.waiting_capacity
        if reading.waiting_deferred is not None:
            waiting[box.name, "deferred"] = reading.waiting_deferred
        if reading.kv_cache_usage is not None:
            usage[box.name,] = reading.kv_cache_usage
    metrics.box_waiting.replace(waiting)
    metrics.box_kv_cache_usage.replace(usage)
