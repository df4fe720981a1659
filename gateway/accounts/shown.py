"""What was used, as metrics: taken over when somebody looks, so that a request counts it once only."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.accounts.usage import COUNTS, NANO, Cell, Key
from gateway.observe.metrics import GatewayMetrics


class ShownUsage:
    """Keeps what it has counted already."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._counted: dict[Key, Cell] = {}

    def show(self, total: Mapping[Key, Cell]) -> None:
        """Count what has come since."""
        metrics = self._metrics
        for key, cell in total.items():
            before = self._counted.setdefault(key, [0] * len(COUNTS))
            if cell == before:
                continue
            customer, kind, _ = key
            kind, _, provider = kind.partition(":")
            _, prompt, completion, _, nano_usd, estimated, _ = (
                now - then for now, then in zip(cell, before, strict=True)
            )
            metrics.tokens.inc(customer, kind, "prompt", by=prompt)
            metrics.tokens.inc(customer, kind, "completion", by=completion)
            if provider:
                metrics.hosted_usd.inc(customer, provider, by=nano_usd / NANO)
            if estimated:
                metrics.usage_estimated.inc(customer, kind, by=estimated)
            before[:] = cell
