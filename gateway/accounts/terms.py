"""Which accounts a policy makes: one for each customer that has limits, one for each provider."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.accounts.account import Terms
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, ProviderSpec

PROVIDER = "provider:"
"""Before a provider's name: no customer's has a colon."""


def is_limited(customer: CustomerPolicy) -> bool:
    """Whether a customer has any limit on its requests."""
    return (
        customer.requests_per_minute is not None
        or customer.tokens_per_minute is not None
        or customer.concurrency is not None
    )


def terms_of(customer: CustomerPolicy) -> Terms:
    """A customer's limits."""
    return Terms(customer.requests_per_minute, customer.tokens_per_minute, customer.concurrency)


def provider_terms(provider: ProviderSpec) -> Terms:
    """A provider's."""
    return Terms(concurrency=provider.max_concurrency)


def all_provider_terms(policy: CompiledPolicy) -> dict[str, Terms]:
    """Of each provider, by account."""
    return {PROVIDER + name: provider_terms(provider) for name, provider in policy.providers.items()}


def account_terms(
    policy: CompiledPolicy,
    before: Mapping[str, Terms] = MappingProxyType({}),
    customers_before: Mapping[str, CustomerPolicy] = MappingProxyType({}),
) -> dict[str, Terms]:
    """All of a policy, by account; those of a customer that has not changed are the very same as ``before``."""
    terms = {
        name: before[name] if customers_before.get(name) is customer else terms_of(customer)
        for name, customer in policy.customers.items()
        if is_limited(customer)
    }
    return terms | all_provider_terms(policy)
