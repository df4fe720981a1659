"""Gateways as processes on one store, and the stand-in provider behind them."""

from __future__ import annotations

from tests.orders.conftest import box, provider, shared_provider, street

__all__ = ["box", "provider", "shared_provider", "street"]
