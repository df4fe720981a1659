"""A gateway before two simulated boxes and a stand-in provider, and clients that run in their own processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from backend.simulator.numbering import numbered_text
from tests.clients.clients import Client
from tests.faults.cast import GENERIC_MODEL, PROVIDER_KEY, Customer, write_policies
from tests.faults.gateway_process import GatewayProcess
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient

TOKENS: Final = 16
ADAPTERS: Final = 250
"""Of each customer: every test takes one of its own, of which no test before it has left a memory."""
LONGEST_S: Final = 200.0
"""Until a script has said something. A test's own time-out is shorter where a library comes from ``.venv``."""
PATIENCE: Final = (("ttft_budget", "5s"), ("plain_budget", "6s"), ("deadline", "20s"), ("stall_timeout", "15s"))
"""Beside other processes an answer may take long for no reason of its own."""

Seen = dict[str, Any]


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
        self._seen: dict[Client, tuple[Caller, dict[str, Seen]]] = {}

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
        """Run the client's script, and what it has seen. ``options``: of the script (``retries=0``), or another
        ``key`` or ``model``."""
        async with self.asking(client, [scenario], caller, **options) as line:
            return await line()

    async def undisturbed(self, client: Client, scenario: str) -> tuple[Caller, Seen]:
        """What the client has seen where all is well. Its process, which takes long to begin, does all scenarios in
        one go and is started once."""
        if client not in self._seen:
            caller, scenarios = self.caller(), sorted(client.scenarios - {"cancel"})
            async with self.asking(client, scenarios, caller) as line:
                self._seen[client] = caller, {name: await line() for name in scenarios}
        caller, seen = self._seen[client]
        return caller, seen[scenario]

    @asynccontextmanager
    async def asking(
        self, client: Client, scenarios: Sequence[str], caller: Caller, **options: Any
    ) -> AsyncIterator[Callable[[], Awaitable[Seen]]]:
        """Inside of the context the process lives; gives what waits for what it has seen of the next scenario."""
        given = {"key": caller.customer.key, "model": caller.adapter, "base-url": self.base_url} | options
        told = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in given.items())
        with tempfile.TemporaryDirectory() as home:
            process = await asyncio.create_subprocess_exec(
                *client.command(), *scenarios, *told, stdin=PIPE, stdout=PIPE, stderr=PIPE,
                env={**client.variables(), "HOME": home}, limit=2**20,
            )  # fmt: skip
            try:
                yield partial(_line, process)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

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


async def _line(process: asyncio.subprocess.Process) -> Seen:
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(LONGEST_S):
        line = await process.stdout.readline()
        if not line.startswith(b"{"):
            raise AssertionError(f"no answer: {(line + await process.stderr.read()).decode()[-4000:]}")
    seen: Seen = json.loads(line)
    return seen
