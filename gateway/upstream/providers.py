"""The hosted providers that the policy in force names, and the connections to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.errors import ConnectError, NotConfigured
from gateway.observe.alarms import Alarms
from gateway.policy.compiled import CompiledPolicy, ProviderSpec, ProviderStep
from gateway.upstream.litellm_process import BASE_HEADER, KEY_HEADER, LitellmProcess
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool

OPENAI_BASE = "https://api.openai.com/v1"

CONNECT_TIMEOUT_S = 3.0
"""Over the internet, with DNS and TLS: more than a box on the private network is given."""

KEEP_ALIVE_S = 20.0
"""A fallback comes in bursts, and a new connection costs a TLS handshake."""

UNAVAILABLE = "provider_unavailable"
"""The alarm's kind for a provider that cannot be asked as it is configured."""


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """Where to send a translated body, and under which head; see :meth:`gateway.upstream.pool.Pool.exchange`."""

    pool: Pool
    head: bytes


class Litellm(Protocol):
    """The LiteLLM worker, in a process of its own."""

    alive: bool
    """Whether a request is worth its wait."""
    origin: Origin

    def start(self) -> None:
        """Start it, and keep it alive from now on."""

    async def close(self) -> None:
        """End it."""


class Providers:
    """Knows how to reach every provider. Pools and the LiteLLM worker come and go with the policy.

    ``state_dir``: the gateway's private folder; it must exist by the time that a policy needs LiteLLM.
    """

    def __init__(
        self, *, state_dir: Path, alarms: Alarms, new_litellm: Callable[[Path, Alarms], Litellm] = LitellmProcess
    ) -> None:
        self._state_dir = state_dir
        self._alarms = alarms
        self._new_litellm = new_litellm
        self._pools: dict[Origin, Pool] = {}
        self._retired: list[Pool] = []
        self._unavailable: set[str] = set()
        self._litellm: Litellm | None = None

    @property
    def litellm(self) -> Litellm | None:
        """The LiteLLM worker, once a policy has needed it."""
        return self._litellm

    def follow(self, compiled: CompiledPolicy) -> None:
        """Take in a new policy: start the LiteLLM worker ahead of need, let go of what nobody names any more."""
        # Most customers share theirs, and to compare thousands takes long.
        fallbacks = {id(customer.steps): customer.steps for customer in compiled.customers.values()}
        steps = {step for fallback in fallbacks.values() for step in fallback}
        unavailable = {name: spec.unavailable for name, spec in compiled.providers.items() if spec.unavailable}
        named: set[Origin] = set()
        for step in steps:
            if not isinstance(step, ProviderStep) or step.provider.name in unavailable:
                continue
            if not step.direct:
                named.add(self._started_litellm().origin)
                continue
            try:
                named.add(_origin(step.provider))
            except NotConfigured as error:
                unavailable[step.provider.name] = str(error)
        for origin in self._pools.keys() - named:
            self._retire(self._pools.pop(origin))
        for name in self._unavailable - unavailable.keys():
            self._alarms.off(UNAVAILABLE, name)
        for name, why in unavailable.items():
            self._alarms.on(UNAVAILABLE, name, f"provider {name} cannot be asked: {why}")
        self._unavailable = set(unavailable)

    def call(self, step: ProviderStep, *, request_id: str) -> ProviderCall:
        """How to ask the provider of ``step``.

        :raises NotConfigured: a reference of the provider's is not set on this gateway, or its address is none.
        :raises ConnectError: the LiteLLM worker is down just now.
        """
        provider = step.provider
        if provider.unavailable is not None:
            raise NotConfigured(f"provider {provider.name}: {provider.unavailable}")
        if step.direct:
            origin = _origin(provider)
            headers = [f"authorization: Bearer {provider.api_key}"] if provider.api_key is not None else []
        else:
            if self._litellm is None or not self._litellm.alive:
                raise ConnectError(f"provider {provider.name}: the LiteLLM worker is down and being started again")
            origin = self._litellm.origin
            headers = [f"{KEY_HEADER}: {provider.api_key}"] if provider.api_key is not None else []
            if provider.api_base is not None:
                headers.append(f"{BASE_HEADER}: {provider.api_base}")
        lines = [
            f"POST {origin.base_path}/chat/completions HTTP/1.1",
            f"host: {origin.host_header.decode('ascii')}",
            "content-type: application/json",
            "accept: application/json, text/event-stream",
            "accept-encoding: identity",
            "user-agent: failsoft",
            f"x-request-id: {request_id}",
            *headers,
        ]
        if not all(line.isascii() and line.isprintable() for line in lines):
            raise NotConfigured(f"provider {provider.name}: its api_key or api_base has characters no header can carry")
        return ProviderCall(self._pool(origin), "".join(f"{line}\r\n" for line in lines).encode("ascii"))

    async def close(self) -> None:
        """Close every connection and end the LiteLLM worker."""
        pools, self._pools, self._retired = [*self._pools.values(), *self._retired], {}, []
        for pool in pools:
            await pool.close()
        if self._litellm is not None:
            await self._litellm.close()
            self._litellm = None

    def _pool(self, origin: Origin) -> Pool:
        # Made at the first call, and again for a request that started under a policy that is no longer in force.
        pool = self._pools.get(origin)
        if pool is None:
            pool = Pool(origin, connect_timeout_s=CONNECT_TIMEOUT_S, keep_alive_s=KEEP_ALIVE_S)
            self._pools[origin] = pool
        return pool

    def _retire(self, pool: Pool) -> None:
        pool.retire()
        self._retired = [retired for retired in (*self._retired, pool) if retired.open]

    def _started_litellm(self) -> Litellm:
        # Kept from then on: a policy that is rolled back and forth must not wait for the import each time.
        if self._litellm is None:
            self._litellm = self._new_litellm(self._state_dir, self._alarms)
            self._litellm.start()
        return self._litellm


def _origin(provider: ProviderSpec) -> Origin:
    try:
        return Origin.parse(provider.api_base or OPENAI_BASE)
    except ValueError as error:
        raise NotConfigured(f"its api_base: {error}") from error
