"""vLLM's resolvers of LoRA adapters, and the environment variables that turn them on. Pure.

A resolver loads whatever folder or repository a request's ``model`` names, ``../outside`` too, by nobody's policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PLUGINS: Final = "VLLM_PLUGINS"
"""Which of vLLM's plugins are loaded, by name; all where it is not set. Those of resolvers have it in their names."""
_SETTINGS: Final = "VLLM_LORA_RESOLVER_"
"""What is set for one; the filesystem's is on as soon as its folder is named."""


def turns_on(name: str, value: str) -> bool:
    """Whether this variable lets vLLM have a resolver."""
    return name.startswith(_SETTINGS) or (name == PLUGINS and _others(value) != value)


def without_resolvers(environment: Mapping[str, str]) -> dict[str, str]:
    """The same variables without those. An empty list of plugins stays: without one all would be loaded."""
    kept = {name: value for name, value in environment.items() if not name.startswith(_SETTINGS)}
    if PLUGINS in kept:
        kept[PLUGINS] = _others(kept[PLUGINS])
    return kept


def _others(plugins: str) -> str:
    return ",".join(name for name in plugins.split(",") if "resolver" not in name.casefold())
