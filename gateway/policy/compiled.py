"""What the request path reads: one policy version, compiled into frozen look-ups.

Built by :mod:`gateway.policy.compile` from the validated models, and replaced whole when a new version comes in:
a request holds on to the version it started with, so that no request is ever decided by half of each.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from gateway.policy.alias import Alias

Priority = Literal["high", "standard", "low"]
OnBrokenStream = Literal["resume", "restart", "error"]


@dataclass(frozen=True, slots=True)
class BoxSpec:
    """One vLLM server. ``api_key`` is resolved; ``unavailable`` says why it cannot be used (an unset reference)."""

    name: str
    fleet: str
    url: str
    max_loras: int
    max_cpu_loras: int
    api_key: str | None = field(default=None, repr=False)
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class SyncSpec:
    """How the adapters on a fleet's boxes are kept as policies name them. ``watch``: gateways do it themselves."""

    watch: bool = False
    every_s: float = 30.0
    grace_s: float = 60.0


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """All boxes that serve one base model, in the order of the YAML."""

    name: str
    base_model: str
    boxes: tuple[BoxSpec, ...]
    adapter_root: str | None = None
    adapter_paths: Mapping[str, str] = field(default_factory=dict, hash=False)
    sync: SyncSpec = SyncSpec()

    def path_of(self, adapter: str) -> str | None:
        """Where ``adapter`` lies on the boxes; None where the policy does not say."""
        if (given := self.adapter_paths.get(adapter)) is not None:
            return given
        return None if self.adapter_root is None else f"{self.adapter_root.rstrip('/')}/{adapter}"


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A hosted API. ``model`` is in LiteLLM's naming, e.g. ``openai/gpt-4o-mini``."""

    name: str
    model: str
    api_base: str | None
    api_key: str | None = field(default=None, repr=False)
    unavailable: str | None = None
    max_concurrency: int = 64
    """Requests at it at once, of all gateways."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD a token. ``cached``: of a prompt's tokens that the provider had in its cache."""

    prompt: float
    completion: float
    cached: float

    def nano_usd(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> int:
        """What an answer costs, in 1e-9 USD. ``cached_tokens`` are among the prompt's."""
        cached = min(cached_tokens, prompt_tokens)
        usd = (prompt_tokens - cached) * self.prompt + cached * self.cached + completion_tokens * self.completion
        return round(usd * 1e9)


@dataclass(frozen=True, slots=True)
class ProviderStep:
    """Ask a hosted provider. ``model`` (LiteLLM's naming) is the step's own, or else the provider's."""

    provider: ProviderSpec
    model: str
    system_prompt: str | None = None
    drop: frozenset[str] = frozenset()
    price: Price | None = None
    """What the model costs; None: nobody knows."""

    @property
    def direct(self) -> bool:
        """Whether the provider speaks OpenAI's protocol and is asked over the relay, without LiteLLM."""
        return self.model.startswith("openai/")

    @property
    def upstream_model(self) -> str:
        """The name to send: without the ``openai/`` prefix where the provider is asked directly."""
        return self.model.removeprefix("openai/") if self.direct else self.model


@dataclass(frozen=True, slots=True)
class BaseStep:
    """Ask the shared base model, without the adapter, on any box of the customer's fleet."""


@dataclass(frozen=True, slots=True)
class StaticStep:
    """Answer with a fixed text."""

    text: str
    even_for_tools: bool = False


Step = ProviderStep | BaseStep | StaticStep


@dataclass(frozen=True, slots=True)
class CustomerPolicy:
    """Everything that decides one customer's requests. Durations in seconds."""

    name: str
    fleet: FleetSpec
    adapters: frozenset[str]
    steps: tuple[Step, ...]
    ttft_budget_s: float
    plain_budget_s: float
    deadline_s: float
    stall_timeout_s: float
    on_broken_stream: OnBrokenStream
    seed_streams: bool = False
    """Whether sampled streams that may have to be said again get a seed, where their client names none."""
    priority: Priority = "standard"
    concurrency: int | None = None
    """Requests that may be answered at once; None: any number."""
    hosted_allowed: bool = True
    aliases: Mapping[str, Alias] = field(default_factory=dict, hash=False)
    """Names that stand for some of ``adapters``; none is an adapter's."""
    drill_every_s: float | None = None
    """How old the proof of a fallback step may become before it is asked for; None: no drills on a schedule."""
    drill_share: float = 0.0
    """Of the customer's requests, from 0 to 1, that try a fallback step first."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    usd_per_day: float | None = None
    """What hosted providers may cost on one day, UTC; None: any amount."""

    @property
    def askable(self) -> frozenset[str]:
        """The adapters that boxes may be asked for: its own, and those that its aliases stood for before."""
        predecessors = [name for alias in self.aliases.values() for name in alias.predecessors]
        return self.adapters.union(predecessors) if predecessors else self.adapters

    def __post_init__(self) -> None:
        # Compiling drops such steps. Here too, so that no other way of making one can forget it.
        if not self.hosted_allowed and any(isinstance(step, ProviderStep) for step in self.steps):
            raise ValueError(f"{self.name} may not reach hosted providers, and has a step that does")

    @property
    def drillable(self) -> tuple[ProviderStep | BaseStep, ...]:
        """The steps that can be proven to work: fixed text needs no proof, and what is not allowed is no step."""
        return tuple(step for step in self.steps if not isinstance(step, StaticStep))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A customer's key, known only by its SHA-256. ``expires``: the last day on which it is valid, UTC."""

    digest: bytes
    customer: CustomerPolicy
    name: str | None = None
    expires: dt.date | None = None


_Entry = TypeVar("_Entry", ApiKey, "AdminToken")

FROM_ENVIRONMENT = "env"
"""What the admin token of the gateway's own environment is called."""


@dataclass(frozen=True, slots=True)
class AdminToken:
    """A token of the admin API, known only by its SHA-256. ``expires``: as of an API key."""

    name: str
    digest: bytes
    scope: Literal["read", "write"]
    expires: dt.date | None = None


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """One policy version, ready to be asked."""

    version: int
    store_id: str
    created_s: int
    """Unix time at which the version was applied, for ``created`` in ``/v1/models``."""
    fleets: Mapping[str, FleetSpec]
    providers: Mapping[str, ProviderSpec]
    customers: Mapping[str, CustomerPolicy]
    keys: Mapping[bytes, ApiKey]
    warnings: tuple[str, ...] = ()
    admin_tokens: Mapping[bytes, AdminToken] = field(default_factory=dict)
    _askable: dict[str, frozenset[str]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def askable(self, fleet: str) -> frozenset[str]:
        """The adapters that a fleet's boxes may be asked for. Of ten thousand customers it takes milliseconds, once."""
        found = self._askable.get(fleet)
        if found is None:
            ours = (customer.askable for customer in self.customers.values() if customer.fleet.name == fleet)
            found = self._askable[fleet] = frozenset[str]().union(*ours)
        return found

    def authenticate(self, key: bytes, today: dt.date) -> CustomerPolicy | None:
        """The customer whose key this is, or None. Compares digests in constant time; reads no clock."""
        entry = _entry(self.keys, key, today)
        return None if entry is None else entry.customer

    def admin(self, token: bytes, today: dt.date) -> AdminToken | None:
        """The admin token that this is, or None. Compared as API keys are."""
        return _entry(self.admin_tokens, token, today)


def _entry(known: Mapping[bytes, _Entry], secret: bytes, today: dt.date) -> _Entry | None:
    digest = hashlib.sha256(secret).digest()
    entry = known.get(digest)
    if entry is None or not hmac.compare_digest(entry.digest, digest):
        return None
    if entry.expires is not None and today > entry.expires:
        return None
    return entry
