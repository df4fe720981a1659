"""A folder of policies with one box, which tests change key by key. JSON is YAML too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backend.launch import free_port

KEY = "sha256:" + "9f" * 32


class PolicyFolder:
    """One fleet ``main`` with one box ``a``, whose model and adapters lie in the folder beside."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "policies"
        self.model = folder / "model"
        self.adapters = folder / "adapters"
        self.port = free_port()
        (self.path / "customers").mkdir(parents=True)
        self.model.mkdir()
        self.adapters.mkdir()
        self._fleet: dict[str, Any] = {
            "base_model": "base",
            "model_path": str(self.model),
            "adapter_root": str(self.adapters),
            "engine": {"max_num_seqs": 32, "tool_call_parser": "llama3_json"},
            "boxes": {"a": {"url": f"http://127.0.0.1:{self.port}", "max_loras": 2}},
        }
        self.customer("acme", "acme_v3")

    def fleet(self, **keys: Any) -> None:
        """Set keys of the fleet; None takes one away."""
        self._fleet |= keys
        self._write()

    def engine(self, **keys: Any) -> None:
        """Set keys of the fleet's engine."""
        self._fleet["engine"] |= keys
        self._write()

    def box(self, **keys: Any) -> None:
        """Set keys of the box."""
        self._fleet["boxes"]["a"] |= keys
        self._write()

    def customer(self, name: str, *adapters: str, rank: int = 16) -> None:
        """A customer whose adapters are there."""
        policy = {"customer": name, "api_keys": [], "adapters": adapters}
        (self.path / "customers" / f"{name}.yaml").write_text(json.dumps(policy))
        for adapter in adapters:
            (self.adapters / adapter).mkdir()
            (self.adapters / adapter / "adapter_config.json").write_text(json.dumps({"r": rank}))
        self._write()

    def _write(self) -> None:
        fleet = {key: value for key, value in self._fleet.items() if value is not None}
        (self.path / "fleet.yaml").write_text(json.dumps({"fleets": {"main": fleet}}))
