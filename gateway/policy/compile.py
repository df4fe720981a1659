"""From validated policies to what the request path reads. Pure: environment, version and time are handed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.errors import PolicyError
from gateway.policy import models
from gateway.policy.alias import Alias
from gateway.policy.compiled import (
    AdminToken,
    ApiKey,
    BaseStep,
    BoxSpec,
    CompiledPolicy,
    CustomerPolicy,
    FleetSpec,
    ProviderSpec,
    ProviderStep,
    StaticStep,
    Step,
    SyncSpec,
)
from gateway.policy.crosscheck import by_name, crosscheck
from gateway.policy.diagnostics import Diagnostic, key_path
from gateway.policy.effective import Effective, effective
from gateway.policy.names import referenced
from gateway.policy.plain_customer import Own
from gateway.policy.policy_set import PolicySet
from gateway.policy.prices import step_price

NAMED = 3
"""How many customers a line about many of them names."""

MOST_STEPS = 10_000
"""Different fallbacks that are remembered."""


def compile_policy(
    policy_set: PolicySet, *, version: int, store_id: str, created_s: int, env: Mapping[str, str] | None
) -> CompiledPolicy:
    """``policy_set`` as frozen look-ups. ``env`` None: references are left unresolved, as for the command line.

    A reference that ``env`` does not have makes its box or provider unavailable, and nothing else. Raises PolicyError
    when the set does not hold together, which a set from :func:`~gateway.policy.validate.read_folder` always does.
    """
    if not policy_set.checked:
        refuse_inconsistent(policy_set)
    frame = Frame(policy_set.fleet, policy_set.defaults, env)
    customers = [frame.customer(customer) for customer in policy_set.customers]
    return assembled(frame, customers, version=version, store_id=store_id, created_s=created_s)


class CompiledCustomer(NamedTuple):
    """One customer's part. ``dropped``: ``hosted.allowed: false`` takes steps out."""

    policy: CustomerPolicy
    keys: tuple[ApiKey, ...]
    dropped: bool


@dataclass(frozen=True, slots=True)
class Common:
    """What a customer's rules come to, which others may have too."""

    rules: Effective
    steps: tuple[Step, ...]


class Frame:
    """All that customers have in common: what one comes to depends on its own file and on this, and on nothing else."""

    def __init__(self, fleet: models.FleetFile, defaults: models.Rules, env: Mapping[str, str] | None) -> None:
        self.written = fleet
        self.defaults = defaults
        self.fleets = {name: _fleet(name, one, env) for name, one in fleet.fleets.items()}
        self.providers = {name: _provider(name, one, env) for name, one in fleet.providers.items()}
        self.admin_tokens = {token.digest: token for token in map(_admin_token, fleet.admin_tokens)}
        self._steps: dict[tuple[Step, ...], tuple[Step, ...]] = {}

    def common(self, customer: models.Rules) -> Common:
        """What becomes of the rules of one that holds together with the rest."""
        rules = effective(self.defaults, customer, self.written.providers)
        steps = tuple(_step(step, self.providers, self.written.providers) for step in rules.steps)
        # Most customers have the same: once is enough, also for those who look at all of them.
        steps = self._steps.setdefault(steps, steps)
        if len(self._steps) > MOST_STEPS:
            self._steps.clear()
        return Common(rules, steps)

    def customer(self, customer: models.CustomerFile) -> CompiledCustomer:
        """What becomes of one that holds together with the rest."""
        return self.with_rules(customer, self.common(customer))

    def with_rules(self, customer: Own, common: Common) -> CompiledCustomer:
        """The same, of one whose rules come to ``common``. Its own are not looked at."""
        fleet = next(iter(self.fleets.values())) if customer.fleet is None else self.fleets[customer.fleet]
        policy = _customer(customer, common.rules, fleet, common.steps)
        keys = tuple(
            [
                ApiKey(_digest(key), policy)
                if isinstance(key, str)
                else ApiKey(_digest(key.sha256), policy, key.name, key.expires)
                for key in customer.api_keys
            ]
        )
        return CompiledCustomer(policy, keys, common.rules.dropped > 0)


def assembled(
    frame: Frame, customers: Sequence[CompiledCustomer], *, version: int, store_id: str, created_s: int
) -> CompiledPolicy:
    """A version of its parts."""
    return CompiledPolicy(
        version=version,
        store_id=store_id,
        created_s=created_s,
        fleets=frame.fleets,
        providers=frame.providers,
        customers={one.policy.name: one.policy for one in customers},
        keys={key.digest: key for one in customers for key in one.keys},
        warnings=tuple(_warnings(customers)),
        admin_tokens=frame.admin_tokens,
    )


def refuse_inconsistent(policy_set: PolicySet) -> None:
    """Raises PolicyError where the parts do not hold together."""
    customers = policy_set.customers
    found = crosscheck(policy_set.fleet, policy_set.defaults, customers, by_name(customers), warnings=False)
    errors = [
        Diagnostic(
            customers[finding.part].customer if isinstance(finding.part, int) else finding.part,
            0,
            0,
            key_path(finding.at),
            finding.message,
            finding.hint,
        )
        for finding in found
        if finding.severity == "error"
    ]
    if errors:
        raise PolicyError(tuple(errors))


def _resolve(reference: str | None, env: Mapping[str, str] | None) -> tuple[str | None, str | None]:
    """The value of a reference, and why there is none."""
    if reference is None or env is None:
        return None, None
    value = env.get(referenced(reference), "").strip()
    if not value:
        return None, f"its api_key refers to {reference}, and {reference} is not set"
    if not value.isascii() or not value.isprintable():
        return None, f"its api_key refers to {reference}, and {reference} holds characters that a header cannot carry"
    return value, None


def _fleet(name: str, fleet: models.Fleet, env: Mapping[str, str] | None) -> FleetSpec:
    boxes = []
    for box_name, box in fleet.boxes.items():
        api_key, unavailable = _resolve(box.api_key, env)
        boxes.append(BoxSpec(box_name, name, box.url, box.max_loras, box.cpu_pool, api_key, unavailable))
    sync = fleet.sync or models.Sync()
    return FleetSpec(
        name,
        fleet.base_model,
        tuple(boxes),
        fleet.adapter_root,
        fleet.adapter_paths,
        SyncSpec(sync.watch, sync.every, sync.grace),
    )


def _provider(name: str, provider: models.Provider, env: Mapping[str, str] | None) -> ProviderSpec:
    api_key, unavailable = _resolve(provider.api_key, env)
    return ProviderSpec(name, provider.model, provider.api_base, api_key, unavailable, provider.max_concurrency)


def _admin_token(token: models.AdminToken) -> AdminToken:
    return AdminToken(token.name, _digest(token.sha256), token.scope, token.expires)


def _digest(sha256: str) -> bytes:
    return bytes.fromhex(sha256.removeprefix("sha256:"))


def _customer(
    customer: Own,
    rules: Effective,
    fleet: FleetSpec,
    steps: tuple[Step, ...],
) -> CustomerPolicy:
    return CustomerPolicy(
        name=customer.customer,
        fleet=fleet,
        adapters=frozenset(customer.adapters),
        steps=steps,
        ttft_budget_s=rules.ttft_budget_s,
        plain_budget_s=rules.plain_budget_s,
        deadline_s=rules.deadline_s,
        stall_timeout_s=rules.stall_timeout_s,
        on_broken_stream=rules.on_broken_stream,
        seed_streams=rules.seed_streams,
        priority=rules.priority,
        concurrency=rules.limits.concurrency,
        hosted_allowed=rules.hosted.allowed,
        aliases={name: Alias.of(customer.customer, name, target) for name, target in customer.aliases.items()},
        drill_every_s=rules.drill_every_s,
        drill_share=rules.drill_share,
        requests_per_minute=rules.limits.requests_per_minute,
        tokens_per_minute=rules.limits.tokens_per_minute,
        usd_per_day=rules.hosted.usd_per_day,
    )


def _step(step: models.Step, providers: Mapping[str, ProviderSpec], written: Mapping[str, models.Provider]) -> Step:
    if isinstance(step, models.ProviderStep):
        provider = providers[step.provider]
        price = step_price(step, written[step.provider])
        model = step.model or provider.model
        return ProviderStep(provider, model, step.system_prompt, frozenset(step.drop), price)
    if isinstance(step, models.StaticStep):
        return StaticStep(step.static, step.even_for_tools)
    return BaseStep()


def _named(customers: list[str]) -> str:
    """``acme, globex, initech and 37 more``"""
    more = len(customers) - NAMED
    return ", ".join(customers[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _warnings(customers: Sequence[CompiledCustomer]) -> Iterator[str]:
    """One line a kind, however many customers it is about."""
    capped = [
        one.policy.name
        for one in customers
        if one.policy.usd_per_day is not None
        and any(isinstance(step, ProviderStep) and step.price is None for step in one.policy.steps)
    ]
    if capped:
        yield (
            f"hosted.usd_per_day: a provider of {_named(capped)} has no known price, so that it is not asked for them: "
            "write price in fleet.yaml"
        )
    if dropped := [one.policy.name for one in customers if one.dropped]:
        yield f"hosted.allowed: false: the provider steps of {_named(dropped)} are not used"
    if alone := [one.policy.name for one in customers if not one.policy.steps]:
        yield f"fallback: nothing answers for {_named(alone)} when the boxes cannot"
