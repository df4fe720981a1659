"""The metrics of adapters that gateways put on the boxes."""

from __future__ import annotations

from gateway.observe.instruments import Counter, Gauge, Registry


class AdapterSyncMetrics:
    """Registered on ``registry``; attributes without the ``failsoft_adapter_sync_`` prefix."""

    def __init__(self, registry: Registry) -> None:
        self.actions = registry.add(
            Counter(
                "failsoft_adapter_sync_actions_total",
                "Adapters loaded, verified and unloaded at a box; outcome: done, failed or rolled_back.",
                ("box", "action", "outcome"),
            )
        )
        self.pending = registry.add(
            Gauge(
                "failsoft_adapter_sync_pending",
                "Adapters that policies name and a box did not have, or had without an answer, when last looked at.",
                ("box",),
            )
        )
        self.acting = registry.add(
            Gauge("failsoft_adapter_sync_acting", "1 for the one gateway that loads and unloads adapters on the boxes.")
        )
