"""``failsoft simulate-box``: a vLLM box without a GPU. It lives with the simulator."""

from __future__ import annotations

from backend.simulator.command import simulate_box

__all__ = ["simulate_box"]
