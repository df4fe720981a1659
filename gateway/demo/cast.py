"""The demo's customers and the policy folder that describes them."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Final

from gateway.policy.schema import schema_text

PROVIDER_KEY_VARIABLE: Final = "FAILSOFT_DEMO_PROVIDER_KEY"
BASE_MODEL: Final = "base"


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer of the demo. ``weight``: its share of the traffic, against the others'."""

    name: str
    adapter: str
    weight: int
    key: str


def cast() -> tuple[Customer, ...]:
    """Four customers of very uneven traffic, with keys made for this run only."""
    shares = {"acme": ("customer_acme_v3", 6), "globex": ("customer_globex_v1", 3)}
    shares |= {"initech": ("customer_initech_v2", 2), "umbrella": ("customer_umbrella_v1", 1)}
    return tuple(
        Customer(name, adapter, weight, f"fs-{name}-{secrets.token_urlsafe(12)}")
        for name, (adapter, weight) in shares.items()
    )


def write_policies(folder: Path, customers: tuple[Customer, ...], boxes: Mapping[str, str], provider_url: str) -> None:
    """Write the folder that the demo's gateway serves from; ``boxes`` maps names to URLs. Raises OSError."""
    # A slot for each: with fewer, vLLM would let the rarer adapters wait for the busier ones.
    slots = f"max_loras: {len(customers)}, max_cpu_loras: 8"
    lines = "\n".join(f'      {name}: {{url: "{url}", {slots}}}' for name, url in boxes.items())
    (folder / "schema.json").write_text(schema_text())
    (folder / "fleet.yaml").write_text(
        f"""\
# yaml-language-server: $schema=schema.json
# Written by `failsoft demo`, anew at each start. Edit it while the demo runs: the gateway follows.
fleets:
  main:
    base_model: {BASE_MODEL}
    boxes:
{lines}
providers:
  hosted:                              # a stand-in that speaks OpenAI's protocol, on this machine
    model: openai/generic
    api_base: {provider_url}
    api_key: ${{{PROVIDER_KEY_VARIABLE}}}
    price: {{input_per_million: 2.5, output_per_million: 10}}   # USD; made up, so that `usage` has sums to show
"""
    )
    (folder / "defaults.yaml").write_text(
        dedent("""\
        # yaml-language-server: $schema=schema.json
        defaults:
          ttft_budget: 2s
          plain_budget: 10s
          deadline: 20s
          stall_timeout: 10s
          fallback:
            - provider: hosted
            - static: "We are in reduced mode; please retry in a minute."
        """)
    )
    for old in (folder / "customers").glob("*.yaml"):
        old.unlink()
    for customer in customers:
        (folder / "customers" / f"{customer.name}.yaml").write_text(
            dedent(f"""\
            # yaml-language-server: $schema=../schema.json
            customer: {customer.name}
            api_keys:
              - "sha256:{hashlib.sha256(customer.key.encode()).hexdigest()}"
            adapters: [{customer.adapter}]
            fallback:
              - provider: hosted
                system_prompt: |
                  Answer as the support agent of {customer.name.capitalize()}. Be brief and polite.
              - static: "{customer.name.capitalize()} is in reduced mode; please retry in a minute."
            """)
        )


def write_keys(path: Path, customers: tuple[Customer, ...]) -> None:
    """Keep the customers' keys for `failsoft load`, for the owner's eyes only. Raises OSError."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text("".join(f"{one.name}: {{key: {one.key}, model: {one.adapter}}}\n" for one in customers))
