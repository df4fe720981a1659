"""The customers, the boxes and the gateway of the engine tests, and how to ask them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import openai

from backend.launch import BASE_MODEL, VllmBox
from backend.tiny_model.artefacts import ADAPTER_NAMES
from tests.support.checker import Seen, check_plain, check_stream
from tests.support.raw_client import RawClient, Recording

PROMPT: Final = "Where is my order?"
ANSWER_TOKENS: Final = 120
LONG_ANSWER_TOKENS: Final = 600
"""So many that a box which is killed in their first part has surely not sent the last."""
GENERIC_MODEL: Final = "generic-mini"
ADMIN_TOKEN: Final = "token-of-the-engine-tests"
HEALING_S: Final = 30.0
"""I7: so long after a box is back, its adapters may still be answered by someone else."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer with one adapter and one key."""

    name: str
    adapter: str
    key: str


CUSTOMERS: Final = tuple(Customer(name.split("_")[1], name, f"fs-{name.split('_')[1]}-key") for name in ADAPTER_NAMES)


def request(customer: Customer, **fields: Any) -> dict[str, Any]:
    """The question of all tests, answered greedily; `fields` are added, or take the place of what is there."""
    messages = [{"role": "user", "content": PROMPT}]
    return {
        "model": customer.adapter,
        "messages": messages,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        **fields,
    }


class EngineFleet:
    """Two real boxes behind one gateway. ``own_answers``: what a box itself says to ``request``, by adapter."""

    def __init__(self, boxes: Mapping[str, VllmBox], gateway_url: str, own_answers: Mapping[str, str]) -> None:
        self.boxes = boxes
        self.own_answers = own_answers
        self._gateway_url = gateway_url
        self._clients: list[openai.AsyncOpenAI] = []

    def agent(self, customer: Customer) -> openai.AsyncOpenAI:
        """The unmodified SDK, pointed at the gateway, without its retries. Closed with this object."""
        client = openai.AsyncOpenAI(
            base_url=f"{self._gateway_url}/v1", api_key=customer.key, max_retries=0, timeout=90.0
        )
        self._clients.append(client)
        return client

    async def ask(self, customer: Customer, *, path: str = "/v1/chat/completions", **fields: Any) -> Recording:
        """``request`` through the gateway, every byte of the answer recorded."""
        client = RawClient(self._gateway_url, key=customer.key)
        return await client.ask(path, request(customer, **fields), timeout_s=90.0)

    async def ask_at(self, path: str, customer: Customer, body: dict[str, Any] | None) -> Recording:
        """Any path of the gateway's, with a customer's key; a GET without a body."""
        return await RawClient(self._gateway_url, key=customer.key).ask(path, body, timeout_s=30.0)

    async def status(self) -> dict[str, Any]:
        """``/admin/status``."""
        return dict((await RawClient(self._gateway_url, key=ADMIN_TOKEN).ask("/admin/status")).json())

    async def ask_box(self, box: str, customer: Customer, **fields: Any) -> Recording:
        """``request`` to the box itself."""
        return await RawClient(self.boxes[box].url).ask(
            "/v1/chat/completions", request(customer, **fields), timeout_s=60.0
        )

    def judge(self, recording: Recording, customer: Customer) -> Seen:
        """Hold an answer to ``request`` against the invariants, and against the words that it has to consist of."""
        check = check_stream if "event-stream" in recording.headers.get("content-type", "") else check_plain
        own = "x-failsoft-degraded" not in recording.headers
        return check(recording, text=self.own_answers[customer.adapter] if own else None)

    async def until_own_adapters_answer(self, *, within_s: float = HEALING_S) -> None:
        """Wait until every customer is answered by its own adapter, and every box is in use for every adapter.

        Raises AssertionError.
        """
        until = time.monotonic() + within_s
        boxes = {f"box:{name}" for name in self.boxes}
        answered_by: set[str] = set()
        latest: list[str] = []
        while not (latest and set(latest) <= boxes <= answered_by) or await self._out_of_use():
            assert time.monotonic() < until, f"{within_s} s after the boxes were up, answers come from {latest}"
            answers = await asyncio.gather(*(self.ask(customer, max_tokens=2) for customer in CUSTOMERS))
            latest = [answer.headers.get("x-failsoft-served-by", "nobody") for answer in answers]
            answered_by |= set(latest)
            await asyncio.sleep(0.2)

    async def _out_of_use(self) -> list[str]:
        """What the gateway does not ask boxes for, as an earlier test made them fail."""
        status = await self.status()
        return [
            f"{box['name']}/{pair['adapter']}"
            for box in status["boxes"]
            for pair in (*box["missing_adapters"], *box["failing_adapters"], *box["suspected_adapters"])
        ]

    async def models(self, box: str) -> set[str]:
        """The names that one box has."""
        listed = await RawClient(self.boxes[box].url).ask("/v1/models")
        return {model["id"] for model in listed.json()["data"]}

    async def load_adapter(self, box: str, customer: Customer) -> None:
        """Register an adapter on one box at run time."""
        path = self.boxes[box].plan.adapters[customer.adapter]
        await self._lora(box, "load", {"lora_name": customer.adapter, "lora_path": str(path)})

    async def unload_adapter(self, box: str, customer: Customer) -> None:
        """Have one box forget an adapter's name: it says 404 from then on."""
        await self._lora(box, "unload", {"lora_name": customer.adapter})

    async def _lora(self, box: str, verb: str, body: dict[str, str]) -> None:
        async with httpx2.AsyncClient(base_url=self.boxes[box].url, timeout=30.0, trust_env=False) as client:
            answer = await client.post(f"/v1/{verb}_lora_adapter", json=body)
        assert answer.status_code == 200, answer.text

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            await client.close()


def write_policies(
    folder: Path, boxes: Mapping[str, VllmBox], provider_url: str, *, ttft_budget_s: float = 8.0
) -> None:
    """The gateway's policy folder. Budgets leave room for two engines and their clients on two cores."""
    fleet = {
        "base_model": BASE_MODEL,
        "boxes": {name: {"url": box.url, "max_loras": box.plan.max_loras} for name, box in boxes.items()},
    }
    hosted = {"model": f"openai/{GENERIC_MODEL}", "api_base": f"{provider_url}/v1", "api_key": "${PROVIDER_KEY}"}
    # JSON is YAML too.
    (folder / "fleet.yaml").write_text(json.dumps({"fleets": {"main": fleet}, "providers": {"hosted": hosted}}))
    (folder / "defaults.yaml").write_text(
        dedent(f"""\
        defaults:
          ttft_budget: {ttft_budget_s * 1000:.0f}ms
          plain_budget: 30s
          deadline: 60s
          stall_timeout: 10s
          on_broken_stream: error
          fallback:
            - provider: hosted
        """)
    )
    (folder / "customers").mkdir()
    for customer in CUSTOMERS:
        digest = hashlib.sha256(customer.key.encode()).hexdigest()
        policy = {"customer": customer.name, "api_keys": [f"sha256:{digest}"], "adapters": [customer.adapter]}
        (folder / "customers" / f"{customer.name}.yaml").write_text(json.dumps(policy))
