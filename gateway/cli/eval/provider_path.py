"""Asks a customer's hosted provider as its degraded requests would be asked, by the gateway's own code."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from backend.evalgate.client import Barred, Unanswered
from backend.evalgate.said import NoAnswer, Said, read_plain
from gateway.dataplane.attempt import Asker
from gateway.dataplane.candidate import Attempt
from gateway.dataplane.request import parse_request
from gateway.dataplane.verdict import is_clients_mistake
from gateway.errors import ConnectError, NotAdmitted, NotConfigured, Reason, UpstreamError, UpstreamStatus
from gateway.fleet.hosted import Hosted
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy, ProviderStep
from gateway.upstream.provider_request import unsuited
from gateway.upstream.providers import Providers

TRIES: Final = 4
PATIENCE_S: Final = 30.0
"""So long a provider that is busy, or LiteLLM while it starts, is waited for."""


def hosted_step(customer: CustomerPolicy, provider: str | None) -> ProviderStep | str:
    """The step of the customer's fallback that asks a provider (``provider``, or the first), or why there is none.

    A policy with ``hosted: {allowed: false}`` has none, whatever its fallback says.
    """
    if not customer.hosted_allowed:
        return "its policy keeps every token on your own boxes (hosted.allowed: false)"
    steps = [step for step in customer.steps if isinstance(step, ProviderStep)]
    found = next((step for step in steps if provider in (None, step.provider.name)), None)
    if found is None:
        return "no step of its fallback asks a provider" + (f" `{provider}`" if provider else "")
    if found.provider.unavailable is not None:
        return f"provider {found.provider.name}: {found.provider.unavailable}"
    return found


class ProviderPath:
    """Made by :func:`provider_path`."""

    def __init__(self, asker: Asker, timeout_s: float) -> None:
        self._asker = asker
        self._timeout_s = timeout_s

    async def ask(self, step: ProviderStep, system_prompt: str | None, fields: Mapping[str, Any]) -> Said:
        """What the provider of ``step`` says under another system prompt. Raises Unanswered, Barred."""
        clock: Callable[[], float] = asyncio.get_running_loop().time
        tried = replace(step, system_prompt=system_prompt)
        request = parse_request(msgspec.json.encode(dict(fields)), id=f"tune-{uuid.uuid4().hex[:12]}", endpoint="chat")
        if (why := unsuited(tried, "chat", request.fields)) is not None:
            return Said(error=f"not asked: {why}")
        patient_until, failures, wait_s = clock() + PATIENCE_S, 0, 0.25
        while True:
            attempt = Attempt("provider", f"provider:{step.provider.name}", step=tried)
            attempt.number, attempt.until, attempt.reason = 1, clock() + self._timeout_s, Reason.FORCED
            try:
                return read_plain(json.loads((await self._asker.ask(request, attempt, clock)).body))
            except NotConfigured as error:
                raise Barred(str(error)) from None
            except (UpstreamError, NoAnswer) as error:
                if isinstance(error, UpstreamStatus) and error.status in (401, 402, 403, 404):
                    raise Barred(f"provider {step.provider.name} answers {error.status}") from None
                if isinstance(error, UpstreamError) and is_clients_mistake(error):
                    return Said(error=str(error))
                # Who was not asked yet waits: for a provider that others found busy, or for LiteLLM to start.
                waits = isinstance(error, NotAdmitted) or (isinstance(error, ConnectError) and not step.direct)
                failures += bool(failures) or not waits
                if failures >= TRIES or clock() > patient_until:
                    raise Unanswered(f"provider {step.provider.name}: {error}") from None
            await asyncio.sleep(wait_s)
            wait_s = min(2.0, wait_s * 2)


@asynccontextmanager
async def provider_path(policy: CompiledPolicy, *, timeout_s: float) -> AsyncIterator[ProviderPath]:
    """The providers of ``policy``, and LiteLLM where one of them needs it, for as long as this is open."""
    metrics, events = GatewayMetrics(Registry()), Events()
    alarms = Alarms(metrics, events)
    with TemporaryDirectory(prefix="failsoft-eval-") as state:
        providers = Providers(state_dir=Path(state), alarms=alarms)
        hosted = Hosted(metrics=metrics, alarms=alarms, events=events, clock=asyncio.get_running_loop().time)
        try:
            providers.follow(policy)
            hosted.follow(policy)
            yield ProviderPath(Asker(providers, hosted), timeout_s)
        finally:
            await providers.close()
