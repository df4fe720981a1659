"""The data plane on a real listener, in the test's own loop: breakers begin closed, and nobody probes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import openai
import uvicorn

from gateway.dataplane.attempt import Asker
from gateway.dataplane.endpoint import DataPlane
from gateway.dataplane.listener import BoundedHttpProtocol, uvicorn_config
from gateway.dataplane.record import Record
from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import (
    ApiKey,
    BoxSpec,
    CompiledPolicy,
    CustomerPolicy,
    FleetSpec,
    OnBrokenStream,
    ProviderSpec,
    ProviderStep,
    Step,
)
from gateway.upstream.providers import Providers
from tests.support.raw_client import RawClient

KEY = "fs-acme-key"
OTHER_KEY = "fs-globex-key"
ADAPTER = "acme_v3"
NEXT_ADAPTER = "acme_v4"
OTHERS_ADAPTER = "globex_v1"
PROVIDER_KEY = "sk-of-the-provider"
GENERIC_MODEL = "generic-mini"


def provider_step(url: str, *, model: str = GENERIC_MODEL, name: str = "hosted", **options: Any) -> ProviderStep:
    """A step that asks the stand-in provider at ``url`` directly."""
    spec = ProviderSpec(name, f"openai/{model}", f"{url}/v1", PROVIDER_KEY)
    return ProviderStep(spec, options.pop("asked", spec.model), **options)


def compiled(
    boxes: Iterable[str],
    steps: Iterable[Step] = (),
    *,
    version: int = 7,
    key: str = KEY,
    on_broken_stream: OnBrokenStream = "error",
    **durations: float,
) -> CompiledPolicy:
    """``acme`` with ``ADAPTER`` and ``steps``, ``globex`` with ``OTHERS_ADAPTER``; boxes by URL are ``a``, ``b``, …"""
    specs = tuple(BoxSpec(name, "main", url, 8, 64) for name, url in zip("abcdef", boxes, strict=False))
    fleet = FleetSpec("main", "base", specs)
    times: dict[str, Any] = {
        "ttft_budget_s": 2.0,
        "plain_budget_s": 30.0,
        "deadline_s": 60.0,
        "stall_timeout_s": 10.0,
    } | durations

    def customer(name: str, adapter: str) -> CustomerPolicy:
        return CustomerPolicy(
            name, fleet, frozenset({adapter}), tuple(steps), on_broken_stream=on_broken_stream, **times
        )

    customers = {"acme": customer("acme", ADAPTER), "globex": customer("globex", OTHERS_ADAPTER)}
    keys = {
        digest: ApiKey(digest, customers[name])
        for name, secret in (("acme", key), ("globex", OTHER_KEY))
        for digest in [hashlib.sha256(secret.encode()).digest()]
    }
    providers = {step.provider.name: step.provider for step in steps if isinstance(step, ProviderStep)}
    return CompiledPolicy(version, "store", 1_700_000_000, {"main": fleet}, providers, customers, keys)


class Plane:
    """Serves ``policy`` as ``current`` says it is; ``change`` puts another in force. ``watching``: the boxes are."""

    def __init__(self, policy: CompiledPolicy, *, state_dir: Path, watching: bool = False, **options: Any) -> None:
        self.current = policy
        self.registry = Registry()
        self.metrics = GatewayMetrics(self.registry)
        self.source = "folder"
        self.events = Events(1000)
        self.alarms = Alarms(self.metrics, self.events)
        self.fleets = Fleets(metrics=self.metrics, alarms=self.alarms, events=self.events, probing=watching)
        self.providers = Providers(state_dir=state_dir, alarms=self.alarms)
        self.hosted = Hosted(metrics=self.metrics, alarms=self.alarms, events=self.events)
        record = Record(self.metrics, self.events, self.alarms)
        self.dataplane = DataPlane(self, self.fleets, Asker(self.providers, self.hosted), record, **options)
        self._state = uvicorn.server.ServerState()
        self._clients: list[openai.AsyncOpenAI] = []
        self.change(policy)

    def change(self, policy: CompiledPolicy) -> None:
        """A new version comes into force."""
        self.current = policy
        self.fleets.follow(policy)
        self.providers.follow(policy)
        self.hosted.follow(policy)

    async def __aenter__(self) -> Self:
        config = uvicorn_config(self.dataplane, shutdown_grace_s=1.0)
        config.load()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: BoundedHttpProtocol(config, self._state, {}), "127.0.0.1", 0
        )
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            await client.close()
        self._server.close()
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=5)
        await self.fleets.close()
        await self.providers.close()

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return len(self._state.tasks)

    @property
    def idle(self) -> bool:
        """Whether nothing is left of any request: no task, no permit, no connection in use."""
        return not self.running and all(box.in_flight == 0 and box.pool.in_use == 0 for box in self.fleets.all())

    def cancel_all(self) -> None:
        """What uvicorn does when its grace is over."""
        for task in list(self._state.tasks):
            task.cancel()

    def raw(self, key: str = KEY) -> RawClient:
        """A client that records every byte."""
        return RawClient(self.url, key=key)

    def sdk(self, key: str = KEY, **options: Any) -> openai.AsyncOpenAI:
        """The unmodified SDK without its retries. Closed with this object."""
        client = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20.0, **options)
        self._clients.append(client)
        return client
