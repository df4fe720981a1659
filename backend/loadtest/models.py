"""What each customer may ask for: the gateway's own list, asked with the customer's key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2

from backend.loadtest.keys import Credential

TIMEOUT_S = 5.0
AT_ONCE = 16


class GatewaySilent(Exception):
    """The gateway cannot be reached. The message says why."""


class KeyRefused(Exception):
    """The gateway answers, and does not take a key or has no model for it."""


async def models_of(url: str, credentials: Mapping[str, Credential]) -> dict[str, str]:
    """Each customer's model: what its entry says, or else the first adapter that ``/v1/models`` lists, an alias only
    where there is nothing else. Raises GatewaySilent or KeyRefused.
    """
    limit = asyncio.Semaphore(AT_ONCE)
    async with httpx2.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:

        async def model(name: str, credential: Credential) -> str:
            if credential.model is not None:
                return credential.model
            async with limit:
                return await _first(client, name, credential.key)

        found = await asyncio.gather(*(model(name, one) for name, one in credentials.items()))
    return dict(zip(credentials, found, strict=True))


async def reach(url: str) -> None:
    """Whether anything answers there. Raises GatewaySilent."""
    try:
        async with httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            await client.get(f"{url}/healthz")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise GatewaySilent(f"{url} cannot be reached ({str(error) or type(error).__name__})") from None


async def _first(client: httpx2.AsyncClient, customer: str, key: str) -> str:
    try:
        answer = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        listed = answer.json()["data"] if answer.status_code == 200 else []
        adapters = [model["id"] for model in listed if "root" not in model] or [model["id"] for model in listed]
    except httpx2.HTTPError as error:
        raise GatewaySilent(f"{client.base_url} cannot be reached ({str(error) or type(error).__name__})") from None
    except (ValueError, KeyError, TypeError):
        raise KeyRefused(f"{client.base_url} does not list models as OpenAI's API does") from None
    if answer.status_code in (401, 403):
        raise KeyRefused(f"the gateway does not take {customer}'s key")
    if not adapters:
        raise KeyRefused(f"the gateway lists no model for {customer} (status {answer.status_code})")
    return str(adapters[0])
