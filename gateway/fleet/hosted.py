"""The hosted providers as they are now: follows the policy, keeps what is known of a provider that did not change."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from gateway.fleet.provider_health import ProviderHealth, ProviderState
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics
from gateway.policy.compiled import CompiledPolicy, ProviderSpec

STATES: tuple[ProviderState, ...] = ("closed", "open", "half_open", "backing_off")

UNAUTHORIZED = "provider_unauthorized"
"""The alarm's kind for a provider that refuses our key."""


NewHealth = Callable[[str, Callable[[ProviderState], None]], ProviderHealth]
"""Makes what is known of a provider of that name; its changes of state are to be told."""


class Hosted:
    """The health of every provider that the policy in force names. ``clock`` is the event loops', monotonic."""

    def __init__(
        self,
        *,
        metrics: GatewayMetrics,
        alarms: Alarms,
        events: Events,
        clock: Callable[[], float] = time.monotonic,
        new_health: NewHealth = ProviderHealth,
    ) -> None:
        self._metrics = metrics
        self._alarms = alarms
        self._events = events
        self._clock = clock
        self._new_health = new_health
        self._providers: dict[str, tuple[ProviderSpec, ProviderHealth]] = {}
        self._told: dict[str, ProviderState] = {}
        metrics.before_render(self._show)

    def follow(self, compiled: CompiledPolicy) -> None:
        """Take over a policy's providers. One whose address and key stayed keeps its state."""
        before = self._providers
        self._providers = {}
        for name, spec in compiled.providers.items():
            known = before.get(name)
            if known is not None and _same(known[0], spec):
                del before[name]
                self._providers[name] = spec, known[1]
            else:
                self._providers[name] = spec, self._new_health(name, self._hears_of(name))
        for name, (_, health) in before.items():
            health.retire()
            self._told.pop(name, None)
            self._alarms.off(UNAUTHORIZED, name)

    def of(self, spec: ProviderSpec) -> ProviderHealth:
        """The health of ``spec``; a request under a policy no longer in force may ask for one that nobody knows now."""
        known = self._providers.get(spec.name)
        if known is not None and (known[0] is spec or _same(known[0], spec)):
            return known[1]
        return ProviderHealth(spec.name)

    def all(self) -> Mapping[str, ProviderHealth]:
        """The health of each provider by name."""
        return {name: health for name, (_, health) in self._providers.items()}

    def condition(self, spec: ProviderSpec, now: float) -> str | None:
        """None where the provider may be asked; else why not, in words that a client may read."""
        return self.of(spec).condition(now)

    def is_last_resort(self, spec: ProviderSpec, now: float) -> bool:
        """Whether the provider may be asked in spite of its condition, where nothing else is left."""
        return self.of(spec).is_last_resort(now)

    def _hears_of(self, name: str) -> Callable[[ProviderState], None]:
        return lambda state: self._changed(name, state)

    def _changed(self, name: str, state: ProviderState) -> None:
        self._metrics.breaker_transitions.inc(f"provider:{name}", state)
        # A trial that fails is no news: of a provider that is down for an hour one event is enough.
        if state != "half_open" and state != self._told.get(name, "closed"):
            self._told[name] = state
            why = {} if state == "closed" else {"why": self._providers[name][1].last_error}
            self._events.add("provider_state", provider=name, state=state, **why)

    def _show(self) -> None:
        now = self._clock()
        self._metrics.provider_state.replace(
            {
                (name, state): float(state == health.state(now))
                for name, (_, health) in self._providers.items()
                for state in STATES
            }
        )


def _same(was: ProviderSpec, spec: ProviderSpec) -> bool:
    return _address_and_key(was) == _address_and_key(spec)


def _address_and_key(spec: ProviderSpec) -> tuple[str | None, ...]:
    # Where no address is given, the first part of the model's name says whose it is.
    return spec.model.partition("/")[0], spec.api_base, spec.api_key, spec.unavailable
