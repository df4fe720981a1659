"""A gateway before two simulated boxes and a stand-in provider, and clients that run in their own processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backend.simulator.numbering import numbered_text
from backend.simulator.vllm_embeddings import vector
from tests.clients.clients import Client
from tests.clients.script import Script, Seen
from tests.clients.scripts.report import TEXTS
from tests.faults.cast import GENERIC_MODEL, PROVIDER_KEY, Customer, write_policies
from tests.faults.gateway_process import GatewayProcess
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient

TOKENS: Final = 16
ADAPTERS: Final = 600
"""Of each customer: every test takes one of its own, of which no test before it has left a memory."""
LONGEST_S: Final = 200.0
"""Until a script has said what it saw. A test's own time-out is shorter where a library comes from ``.venv``."""
PATIENCE: Final = (("ttft_budget", "5s"), ("plain_budget", "6s"), ("deadline", "20s"), ("stall_timeout", "15s"))
"""Beside other processes an answer may take long for no reason of its own."""


class Limited(Customer):
    """May have one request answered at a time."""

    def policy(self) -> dict[str, Any]:
        return {**super().policy(), "limits": {"concurrency": 1}}


def _adapters(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_v{number}" for number in range(ADAPTERS))


ACME: Final = Customer("acme", _adapters("acme"), ("provider",), budgets=PATIENCE)
LONELY: Final = Customer("lonely", _adapters("lonely"), (), budgets=PATIENCE)
"""Without any fallback."""
LIMITED: Final = Limited("limited", _adapters("limited"), (), budgets=(*PATIENCE[:-1], ("stall_timeout", "5m")))
SDK_ADAPTER: Final = "sdk_v1"
"""Of a customer that a test adds."""
CUSTOMERS: Final = (ACME, LONELY, LIMITED)


@dataclass
class Caller:
    """One customer with an adapter that no other test uses."""

    customer: Customer
    adapter: str

    @property
    def text(self) -> str:
        """What its own adapter says."""
        return numbered_text(self.adapter, TOKENS, None).text

    @property
    def parsed(self) -> dict[str, Any]:
        """What its own adapter says where it has to be an object."""
        return numbered_object(self.adapter)


def numbered_object(name: str) -> dict[str, Any]:
    """The arguments of a tool call, or a structured answer, of ``name``."""
    return {"answered_by": name, "numbers": list(range(TOKENS - 2))}


def expect_own_vectors(seen: Seen, caller: Caller) -> None:
    """What the client has got of ``TEXTS`` is what the caller's own adapter makes of them."""
    assert "errors" not in seen, seen["errors"]
    assert seen.get("model") in (None, caller.adapter)
    assert seen["vectors"] == [vector(caller.adapter, text) for text in TEXTS]


class Town:
    """Everything, up and running. What a test breaks, ``heal`` mends."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes = processes
        adapters = [SDK_ADAPTER, *(adapter for customer in CUSTOMERS for adapter in customer.adapters)]
        pace: dict[str, Any] = {"ttft_ms": 5, "itl_ms": 2, "tokens": TOKENS}
        self.boxes = {
            name: processes.box(name=name, adapters=adapters, embeddings=True, **pace) for name in ("box-a", "box-b")
        }
        self.provider = processes.provider(api_key=PROVIDER_KEY, model=[GENERIC_MODEL], **pace)
        for simulator in (*self.boxes.values(), self.provider):
            simulator.wait_ready()
        entries = {name: {"url": box.url} for name, box in self.boxes.items()}
        self.policies = folder / "policies"
        write_policies(self.policies, {"main": entries}, self.provider.url, customers=CUSTOMERS)
        self.gateway = GatewayProcess.start(processes, "--policies", self.policies, "--state", folder / "state")
        self.gateway.wait_ready()
        self._left = {customer.name: iter(customer.adapters) for customer in CUSTOMERS}
        self._undisturbed: dict[Client, Caller] = {}
        self._speaking: tuple[Client, Script] | None = None

    @property
    def base_url(self) -> str:
        """As clients are told it."""
        return f"{self.gateway.url}/v1"

    def caller(self, customer: Customer = ACME) -> Caller:
        """Somebody new."""
        return Caller(customer, next(self._left[customer.name]))

    async def first_box(self, caller: Caller) -> Simulator:
        """The box that answers this caller while all is well."""
        recording = await RawClient(self.gateway.url, key=caller.customer.key).chat(caller.adapter, stream=False)
        return self.boxes[recording.headers["x-failsoft-served-by"].removeprefix("box:")]

    async def ask(self, client: Client, scenario: str, caller: Caller, **options: Any) -> Seen:
        """Have the client's script do the scenario, and what it has seen. ``options``: of the script (``retries=0``),
        or another ``key`` or ``model``."""
        told = {
            "scenario": scenario, "api": client.api, "base_url": self.base_url, "key": caller.customer.key,
            "model": caller.adapter, "retries": 2,
        }  # fmt: skip
        return await self._script_of(client).do({**told, **options}, within_s=LONGEST_S)

    async def undisturbed(self, client: Client, scenario: str) -> tuple[Caller, Seen]:
        """What the client has seen where all is well."""
        caller = self._undisturbed.get(client)
        if caller is None:
            caller = self._undisturbed[client] = self.caller()
        return caller, await self.ask(client, scenario, caller)

    def _script_of(self, client: Client) -> Script:
        """Its process. It takes long to begin, and so goes on until another client is asked."""
        if self._speaking is None or self._speaking[0] is not client or not self._speaking[1].running:
            self.dismiss()
            self._speaking = client, Script(client.command(), client.variables())
        return self._speaking[1]

    def dismiss(self) -> None:
        """End the client's process."""
        if self._speaking is not None:
            self._speaking[1].close()
            self._speaking = None

    def arrivals(self, caller: Caller) -> list[dict[str, Any]]:
        """What has arrived of this caller at boxes, each with its ``box``."""
        return [
            {"box": name, **entry}
            for name, box in self.boxes.items()
            if box.running
            for entry in box.admin.requests(model=caller.adapter)
        ]

    def in_flight(self) -> int:
        """The gateway's own count of requests that are being answered."""
        lines = self.gateway.metrics().splitlines()
        return int(float(next(line.split()[-1] for line in lines if line.startswith("failsoft_in_flight "))))

    async def heal(self) -> None:
        """Nothing is broken any more, and the gateway knows it."""
        for box in self.boxes.values():
            if not box.running:
                box.start()
            else:
                box.admin.heal()
        self.provider.admin.heal()
        for box in self.boxes.values():
            await box.ready()

        def closed() -> bool:
            status = self.gateway.status()
            return all(one["state"] == "closed" for one in (*status["boxes"], *status["providers"]))

        await eventually(closed, within_s=30)
