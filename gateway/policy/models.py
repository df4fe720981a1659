"""What ops write: the three kinds of YAML as Pydantic models.

Scalars are strict and unknown keys are errors, so that a slip is found when it is made and not when a box dies. A key
that is left out stays out of ``model_fields_set``: that is how a customer's key replaces the default's whole.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag

from gateway.policy.compiled import OnBrokenStream, Priority
from gateway.policy.durations import Duration, Every
from gateway.policy.engine_options import EngineOptions
from gateway.policy.keys import Keys as Keys
from gateway.policy.names import KeyDigest, ModelName, Name, ProviderModel, Reference, Text, Url
from gateway.policy.shares import Share

MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for ``--max-lora-rank``."""

UNDROPPABLE = frozenset({"messages", "model", "stream"})


def _known_rank(value: int) -> int:
    if value not in MAX_LORA_RANKS:
        raise ValueError(f"has to be one of {', '.join(map(str, MAX_LORA_RANKS))}, which are what vLLM takes")
    return value


class Box(Keys):
    """One vLLM server."""

    url: Url
    """Its base address, without /v1."""
    max_loras: Annotated[int, Field(ge=1, le=4096)] = 8
    """LoRA slots on the GPU."""
    max_cpu_loras: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Adapters kept in main memory; when left out, what max_loras and the adapters of the fleet need, at least 64."""
    api_key: Reference | None = None
    """A reference such as ${BOX_KEY}."""
    engine: EngineOptions | None = None
    """For `failsoft backend`: how this box's vLLM is started, key by key instead of the fleet's."""

    @property
    def cpu_pool(self) -> int:
        """``max_cpu_loras`` with its default."""
        return max(64, self.max_loras) if self.max_cpu_loras is None else self.max_cpu_loras


class Sync(Keys):
    """How the adapters on a fleet's boxes are kept as policies name them; for gateways and `failsoft backend sync`."""

    watch: bool = False
    """Gateways load what boxes lack and unload what policies no longer name; one of all gateways does it at a time."""
    every: Duration = 30.0
    """How often a gateway looks, besides when policies change or a box comes back. 30s."""
    grace: Duration = 60.0
    """How long an adapter stays on the boxes after policies stopped naming it. 60s."""


class Fleet(Keys):
    """All boxes that serve one base model."""

    base_model: ModelName
    """The base's served name on the boxes."""
    model_path: Text | None = None
    """Where the base lies on the boxes, for `failsoft backend`."""
    adapter_root: Text | None = None
    """The folder that holds the adapters on the boxes."""
    adapter_paths: dict[ModelName, Text] = Field(default_factory=dict)
    """Where an adapter lies on the boxes, if not in adapter_root under its name."""
    max_lora_rank: Annotated[int, AfterValidator(_known_rank)] = 16
    """One rank for all adapters of the fleet."""
    engine: EngineOptions | None = None
    """For `failsoft backend`: how vLLM is started on the boxes."""
    sync: Sync | None = None
    """How adapters get onto the boxes while they serve. By `failsoft backend sync` alone, when left out."""
    boxes: Annotated[dict[Name, Box], Field(min_length=1)]
    """The vLLM servers, by name."""


class Price(Keys):
    """What a hosted model costs, in USD a million tokens."""

    input_per_million: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Of the prompt."""
    output_per_million: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Of the answer."""
    cached_input_per_million: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Of the part of the prompt that the provider has in its cache; as the rest of it when left out."""


class Provider(Keys):
    """A hosted API reached in fallback."""

    model: ProviderModel
    """In LiteLLM's naming; openai/… is asked directly, all else through LiteLLM."""
    api_base: Url | None = None
    """Its address, where it is not the provider's usual one."""
    api_key: Reference | None = None
    """A reference such as ${OPENAI_API_KEY}; a literal key is refused."""
    price: Price | None = None
    """What it costs, where LiteLLM's price map does not know or is wrong."""
    max_concurrency: Annotated[int, Field(ge=1)] = 64
    """Requests that may be at it at once, of all customers and gateways; then the next step answers."""


class AdminToken(Keys):
    """A token of the admin API, known only by its digest."""

    name: Name
    """What the audit log calls whoever holds it."""
    sha256: KeyDigest
    """64 hex digits. `failsoft policies new-admin-token` makes a token and prints this line."""
    scope: Literal["read", "write"]
    """read: look at everything; write: change things too."""
    expires: dt.date | None = None
    """The last day on which it is valid, UTC."""


class FleetFile(Keys):
    """fleet.yaml"""

    fleets: Annotated[dict[Name, Fleet], Field(min_length=1)]
    """Each with one base model and one tokenizer."""
    providers: dict[Name, Provider] = Field(default_factory=dict)
    """Hosted APIs that fallback steps name."""
    admin_tokens: list[AdminToken] = Field(default_factory=list)
    """Who may use the admin API, besides whoever has the gateway's FAILSOFT_ADMIN_TOKEN."""


def _droppable(field: str) -> str:
    if field in UNDROPPABLE:
        raise ValueError("cannot be dropped: no provider answers without it")
    return field


class ProviderStep(Keys):
    """Ask a hosted provider."""

    provider: Name
    """One of fleet.yaml's providers."""
    system_prompt: Text | None = None
    """House style for the generic model, put in front of the conversation."""
    drop: list[Annotated[Text, AfterValidator(_droppable)]] = Field(default_factory=list)
    """Request fields that this provider must not see."""
    model: ProviderModel | None = None
    """Another model of the provider than its own."""


class BaseOptions(Keys):
    """Nothing can be set yet: write base: {}."""


class BaseStep(Keys):
    """Ask the shared base model, without the adapter, if a box is up."""

    base: BaseOptions


class StaticStep(Keys):
    """Answer with a fixed text."""

    static: Text
    """The answer."""
    even_for_tools: bool = False
    """Answer so even where the request has tools or wants JSON."""


STEP_TAGS = {"provider": "<provider>", "base": "<base>", "static": "<static>"}


def _step_kind(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((tag for key, tag in STEP_TAGS.items() if key in value), None)
    return next((tag for key, tag in STEP_TAGS.items() if hasattr(value, key)), None)


Step = Annotated[
    Annotated[ProviderStep, Tag("<provider>")]
    | Annotated[BaseStep, Tag("<base>")]
    | Annotated[StaticStep, Tag("<static>")],
    Discriminator(
        _step_kind,
        custom_error_type="step_kind",
        custom_error_message="a step has one of the keys provider, base and static",
    ),
]


class Limits(Keys):
    """How much one customer may ask for."""

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None


class Hosted(Keys):
    """Whether and for how much hosted providers may be asked."""

    allowed: bool = True
    """False keeps every token on your own boxes."""
    usd_per_day: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class Drills(Keys):
    """How it is proven, before anybody needs it, that each step of the fallback works."""

    every: Every | None = None
    """How old a step's proof may become before it is asked a small question, such as 24h; never: not at all. 24h."""
    share: Share | None = None
    """So much of the customer's own traffic, such as 0.5%, tries the fallback first. None when left out."""


class Rules(Keys):
    """What defaults.yaml sets for all and a customer's file for one."""

    ttft_budget: Duration | None = None
    """Streams: wait no longer for the own adapter's first token. 2s."""
    plain_budget: Duration | None = None
    """Plain requests: wait no longer for the own adapter's whole answer. Half the deadline."""
    deadline: Duration | None = None
    """Until the first content is out, whoever answers. 60s."""
    stall_timeout: Duration | None = None
    """The longest silence between two frames. 10s."""
    on_broken_stream: OnBrokenStream | None = None
    """What happens when a stream breaks after its first content. resume."""
    seed_streams: bool | None = None
    """Give sampled streams a `seed` where the client names none, so that another box can say them again. false."""
    priority: Priority | None = None
    """Who goes first when there is not enough for all. standard."""
    limits: Limits | None = None
    """Requests and tokens a minute, requests at once."""
    fallback: list[Step] | None = None
    """Who answers when the own adapter cannot, in this order."""
    hosted: Hosted | None = None
    """Allowed and uncapped when left out."""
    drills: Drills | None = None
    """How the fallback is proven to work. A question to each step every 24h."""


class DefaultsFile(Keys):
    """defaults.yaml"""

    defaults: Rules = Field(default_factory=Rules)
    """What holds for a customer whose own file says nothing else."""


class ApiKeyEntry(Keys):
    """An API key with a name and an expiry."""

    sha256: KeyDigest
    """64 hex digits."""
    name: Text | None = None
    """What people call it."""
    expires: dt.date | None = None
    """The last day on which it is valid, UTC."""


class KnownKey(NamedTuple):
    """An API key in whichever form it was written. ``sha256``: with its prefix, in lower case."""

    sha256: str
    name: str | None = None
    expires: dt.date | None = None


def _text_or_mapping(value: Any) -> str | None:
    return "<text>" if isinstance(value, str) else "<mapping>" if isinstance(value, dict | BaseModel) else None


ApiKey = Annotated[
    Annotated[KeyDigest, Tag("<text>")] | Annotated[ApiKeyEntry, Tag("<mapping>")],
    Discriminator(
        _text_or_mapping,
        custom_error_type="api_key",
        custom_error_message='an API key is "sha256:…" in quotes, or a mapping with the keys sha256, name and expires',
    ),
]

Weights = Annotated[dict[ModelName, Annotated[int, Field(ge=0, le=1_000_000)]], Field(min_length=1)]

Alias = Annotated[
    Annotated[ModelName, Tag("<text>")] | Annotated[Weights, Tag("<mapping>")],
    Discriminator(
        _text_or_mapping,
        custom_error_type="alias",
        custom_error_message="an alias is an adapter's name, or a mapping of adapters to weights",
    ),
]


class CustomerFile(Rules):
    """customers/NAME.yaml"""

    customer: Name
    """Who this is about."""
    fleet: Name | None = None
    """Which fleet serves the adapters; may be left out where there is one."""
    api_keys: list[ApiKey]
    """SHA-256 digests of the customer's keys; the keys themselves are kept nowhere."""
    adapters: list[ModelName]
    """The names that the customer's agents ask for."""
    aliases: dict[ModelName, Alias] = Field(default_factory=dict)
    """Names that stay when the adapter's next version comes."""

    @property
    def keys(self) -> tuple[KnownKey, ...]:
        """All API keys in one form."""
        return tuple(
            [
                KnownKey(key.sha256, key.name, key.expires) if isinstance(key, ApiKeyEntry) else KnownKey(key)
                for key in self.api_keys
            ]
        )

    @property
    def digests(self) -> list[str]:
        """Of all API keys, as :attr:`keys` has them."""
        return [key if isinstance(key, str) else key.sha256 for key in self.api_keys]
