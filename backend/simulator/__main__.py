"""``python -m backend.simulator``: a vLLM box without a GPU."""

from __future__ import annotations

import typer

from backend.simulator.command import simulate_box

if __name__ == "__main__":
    typer.run(simulate_box)
