"""What a journey consists of: attempts, waits, and how it sees the providers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.dataplane.decide import BoxView
from gateway.errors import Reason
from gateway.fleet.permit import Held
from gateway.policy.compiled import ProviderSpec, ProviderStep, StaticStep

Kind = Literal["own", "base", "provider", "static"]


@dataclass(slots=True, eq=False)
class Attempt:
    """One try of one target. ``until``: monotonic time by which its first content has to be there (plain: all of it).

    ``reason`` is None for the own adapter, else why the answer is degraded. ``adapter``: what a box is asked for; None:
    its base.
    """

    kind: Kind
    served_by: str
    number: int = 0
    until: float = 0.0
    reason: Reason | None = None
    box: BoxView | None = None
    adapter: str | None = None
    step: ProviderStep | StaticStep | None = None
    forced: bool = False
    """Asked although its breaker is open, as nothing else is left."""
    extra: bool = False
    """Beyond the attempts and the retry budget that the own adapter has, as nothing else is left."""
    permit: Held | None = None
    """What it has been let in by, where it waited for that."""
    outrun: bool = False
    """It was silent, and is cancelled as another target has answered."""


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """No attempt yet: until monotonic time ``until`` it has to be seen whether one of ``boxes`` gets room for
    ``adapter``. Then ``waited`` is due."""

    adapter: str
    boxes: Sequence[BoxView]
    budget_s: float
    until: float


Unsuited = Callable[[ProviderStep], str | None]
"""Why a provider step cannot serve this request, or None."""


class ProvidersView(Protocol):
    """What a journey sees of the providers."""

    def condition(self, provider: ProviderSpec, now: float) -> str | None:
        """None where the provider may be asked; else why not, in words that a client may read."""

    def is_last_resort(self, provider: ProviderSpec, now: float) -> bool:
        """Whether it may be asked in spite of that, where nothing else is left."""


def own_attempt(box: BoxView, adapter: str, *, forced: bool = False, extra: bool = False) -> Attempt:
    """One of the customer's own adapters, on ``box``."""
    return Attempt("own", f"box:{box.name}", box=box, adapter=adapter, forced=forced, extra=extra)


def provider_attempt(step: ProviderStep, *, forced: bool = False) -> Attempt:
    """A fallback step at a provider."""
    return Attempt("provider", f"provider:{step.provider.name}", step=step, forced=forced)
