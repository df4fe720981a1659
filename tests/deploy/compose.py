"""compose.yaml as Compose reads it, as far as it uses Compose: variables, profiles, commands, health checks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "docs" / "deploy"
PROFILES = ("simulated", "cpu", "gpu")

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Z_]+)(?::(?P<how>[-?])(?P<word>[^}]*))?\})")


def read(env: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables replaced. Raises KeyError for one that is required and not there."""

    def replaced(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        if value := env.get(found["name"], ""):
            return value
        if found["how"] == "?":
            raise KeyError(f"{found['name']}: {found['word']}")
        return found["word"] or ""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return _VARIABLE.sub(replaced, value)
        if isinstance(value, list):
            return [walk(one) for one in value]
        if isinstance(value, dict):
            return {key: walk(one) for key, one in value.items()}
        return value

    found: dict[str, Any] = walk(yaml.safe_load((ROOT / "compose.yaml").read_text()))
    return found


COMPOSE = read({"ADMIN_TOKEN": "of-admins", "GRAFANA_PASSWORD": "of-grafana"})
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def of_profile(profile: str) -> dict[str, dict[str, Any]]:
    """The services that ``--profile`` starts."""
    return {name: service for name, service in SERVICES.items() if profile in service["profiles"]}


def hosts(profile: str) -> dict[str, str]:
    """The names under which services of a profile find each other: each name's service."""
    found: dict[str, str] = {}
    for name, service in of_profile(profile).items():
        aliases = service.get("networks", {}).get("default", {}).get("aliases", [])
        for host in (name, *aliases):
            assert host not in found, f"{host} is {found[host]} and {name}"
            found[host] = name
    return found


def words(command: str | list[str]) -> list[str]:
    """A command's arguments; one that is a string is split as a shell would."""
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def health_check(service: Mapping[str, Any]) -> list[str]:
    """What it runs; none of ours needs a shell."""
    test: list[str] = service["healthcheck"]["test"]
    assert test[0] == "CMD"
    return test[1:]


def seconds(duration: str) -> float:
    """``45s`` or ``15m``."""
    return float(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]
