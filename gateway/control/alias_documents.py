"""What the control plane says of aliases: who gets which version, and how many have."""

from __future__ import annotations

from typing import Any

from gateway.observe.metrics import Registry
from gateway.policy.alias import Alias, named_conversation
from gateway.policy.compiled import CompiledPolicy

Document = dict[str, Any]


def versions(alias: Alias, conversation: str) -> tuple[str, ...]:
    """The adapters that a request for ``alias`` would meet: of a conversation by name, else the heaviest first."""
    if conversation:
        return alias.versions(named_conversation(conversation))
    return tuple(sorted((name for name, weight in alias.weights.items() if weight), key=lambda n: -alias.weights[n]))


def alias_for(alias: Alias, conversation: str) -> Document:
    """The alias, and which version it stands for; ``chosen_by``: ``only``, ``conversation`` or ``weight``."""
    chosen_by = "only" if alias.only is not None else "conversation" if conversation else "weight"
    return {
        "name": alias.name,
        "weights": dict(alias.weights),
        "adapter": versions(alias, conversation)[0],
        "chosen_by": chosen_by,
        "conversation": conversation or None,
    }


def splits(policy: CompiledPolicy, registry: Registry) -> list[Document]:
    """Every alias that names several adapters, or had requests for another since the start, with how many each got."""
    asked: dict[tuple[str, str], dict[str, int]] = {}
    for (customer_name, alias_name, adapter), count in registry.counter("failsoft_alias_requests_total").items():
        asked.setdefault((customer_name, alias_name), {})[adapter] = int(count)
    found = []
    for customer in policy.customers.values():
        for alias in customer.aliases.values():
            requests = asked.get((customer.name, alias.name), {})
            names = [*alias.weights, *sorted(requests.keys() - alias.weights.keys())]
            if len(names) > 1:
                found.append(
                    {
                        "customer": customer.name,
                        "alias": alias.name,
                        "versions": [
                            {"adapter": name, "weight": alias.weights.get(name, 0), "requests": requests.get(name, 0)}
                            for name in names
                        ],
                    }
                )
    return found
