"""The customers of the fault tests, chosen so that each rule of the invariants has somebody whom it would hurt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

StepKind = Literal["provider", "base", "static"]

BASE: Final = "base"
GENERIC_MODEL: Final = "generic-mini"
PROVIDER: Final = "hosted"
PROVIDER_KEY: Final = "key-of-the-provider"
BOX_KEY: Final = "key-of-box-b"
ADMIN_TOKEN: Final = "token-of-the-admin"

DEFAULTS: Final = {
    # Above what a healthy answer takes on a loaded machine (some 50 ms), and short enough to wait it out often.
    "ttft_budget": "1s",
    "plain_budget": "2s",
    "deadline": "5s",
    "stall_timeout": "1s",
    "fallback": [{"provider": PROVIDER}],
    # What is broken on purpose is not to be found by a drill in between.
    "drills": {"every": "never"},
}


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer. ``fallback``: the steps as its policy has them; ``hosted``: what ``hosted.allowed`` says."""

    name: str
    adapters: tuple[str, ...]
    fallback: tuple[StepKind, ...] = ("provider",)
    hosted: bool = True
    budgets: tuple[tuple[str, str], ...] = ()
    fleet: str = "main"

    @property
    def key(self) -> str:
        """Its API key."""
        return f"client-key-of-{self.name}"

    @property
    def static_text(self) -> str:
        """What its static step says."""
        return f"{self.name} is in reduced mode; please retry in a minute."

    @property
    def steps(self) -> tuple[StepKind, ...]:
        """The steps that are left once its own policy has had its say."""
        return self.fallback if self.hosted else tuple(step for step in self.fallback if step != "provider")

    def policy(self) -> dict[str, Any]:
        """Its file."""
        steps: dict[StepKind, dict[str, Any]] = {
            "provider": {"provider": PROVIDER, "system_prompt": f"You answer for {self.name}."},
            "base": {"base": {}},
            "static": {"static": self.static_text},
        }
        return {
            "customer": self.name,
            "fleet": self.fleet,
            "api_keys": ["sha256:" + hashlib.sha256(self.key.encode()).hexdigest()],
            "adapters": list(self.adapters),
            "fallback": [steps[kind] for kind in self.fallback],
            **({} if self.hosted else {"hosted": {"allowed": False}}),
            **dict(self.budgets),
        }


# Which of the two boxes an adapter prefers follows from its name: with these, some prefer either.
ACME: Final = Customer("acme", ("acme_v1",), ("provider", "base", "static"))
GLOBEX: Final = Customer("globex", ("globex_v1",), ("provider", "base", "static"), hosted=False)
INITECH: Final = Customer("initech", ("initech_v1", "initech_v3"))
UMBRELLA: Final = Customer("umbrella", ("umbrella_v1",), ("provider", "base"), hosted=False)
HOOLI: Final = Customer("hooli", ("hooli_v2",), ())
PATIENT: Final = Customer(
    "patient",
    ("patient_v1", "patient_v2"),
    ("provider", "static"),
    budgets=(("ttft_budget", "5s"), ("plain_budget", "6s"), ("deadline", "15s"), ("stall_timeout", "15s")),
)
"""Waits longer than any test: what ends its waiting is not its own budget."""

CROWD: Final = (ACME, GLOBEX, INITECH, UMBRELLA, HOOLI)
"""Who asks in every test: one with every step, one that forbids hosted providers, one with two adapters and the
default's fallback, one with boxes only and one without any fallback."""

EVERYBODY: Final = (*CROWD, PATIENT)
SECRETS: Final = (*(customer.key for customer in EVERYBODY), ADMIN_TOKEN)
"""What must never travel upstream."""

ENVIRONMENT: Final = {
    "HOSTED_KEY": PROVIDER_KEY,
    "BOX_KEY": BOX_KEY,
    "FAILSOFT_ADMIN_TOKEN": ADMIN_TOKEN,
}


def write_policies(
    folder: Path,
    fleets: Mapping[str, Mapping[str, dict[str, str]]],
    provider_url: str,
    *,
    customers: tuple[Customer, ...] = EVERYBODY,
) -> Path:
    """Write the three kinds of YAML. ``fleets``: each box's entry in fleet.yaml, by fleet and name."""
    (folder / "customers").mkdir(parents=True, exist_ok=True)
    fleet = {
        "fleets": {name: {"base_model": BASE, "boxes": dict(boxes)} for name, boxes in fleets.items()},
        "providers": {
            PROVIDER: {
                "model": f"openai/{GENERIC_MODEL}",
                "api_base": f"{provider_url}/v1",
                "api_key": "${HOSTED_KEY}",
            }
        },
    }
    _write(folder / "fleet.yaml", fleet)
    _write(folder / "defaults.yaml", {"defaults": DEFAULTS})
    for customer in customers:
        _write(folder / "customers" / f"{customer.name}.yaml", customer.policy())
    return folder


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
