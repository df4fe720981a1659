"""Two simulated boxes, a stand-in provider and the gateway before them, and the crowd that asks it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.faults.cast import (
    BOX_KEY,
    CROWD,
    EVERYBODY,
    GENERIC_MODEL,
    HOOLI,
    INITECH,
    PROVIDER,
    PROVIDER_KEY,
    Customer,
    write_policies,
)
from tests.faults.gateway_process import GatewayProcess
from tests.faults.history import Arrival, Asked, History
from tests.faults.invariants import CANCELLED_WITHIN_S, SLACK_S, Weather, complaints
from tests.faults.store_process import StoreProcess
from tests.support.eventually import eventually
from tests.support.lag import Lag, Until
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient

HEALING_S: Final = 30.0
"""I7."""

BUSY: Final = "The engine is currently busy. Please retry later."
TOKENS: Final = 16
DRAIN_S: Final = 2.0
"""What the gateways are given to end in."""

SERVER_FAULTS: Final = ("refuse", "freeze")
"""These do not count how often they act."""

THINKING_S: Final = 0.05
"""Between an answer and the same client's next question, so that the machine is not what breaks first."""

BUDGET_FILLS_S: Final = 1.0
"""The retry budget is ten, at ten a second (I5): no test is to lack what the one before it has spent."""

SHOWN: Final = 20
"""Complaints in the message of a test that fails."""

Rule = dict[str, Any]


class House:
    """Everything, up and running. Tests break it; ``calm`` makes it whole again."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        """Start boxes and provider; ``open`` has to follow."""
        self._processes = processes
        self._folder = folder
        self._numbers = itertools.count()
        self._healed_at = time.monotonic()
        self._lag = Lag()
        adapters = [adapter for customer in EVERYBODY for adapter in customer.adapters]
        pace: dict[str, Any] = {"ttft_ms": 5, "itl_ms": 2, "tokens": TOKENS}
        self.boxes = {
            "box-a": processes.box(name="box-a", adapters=adapters, **pace),
            "box-b": processes.box(name="box-b", adapters=adapters, api_key=BOX_KEY, **pace),
        }
        self.provider = processes.provider(api_key=PROVIDER_KEY, model=[GENERIC_MODEL], **pace)
        self.store = StoreProcess.start(processes)
        self._gateway: GatewayProcess | None = None

    def open(self, env: Mapping[str, str]) -> None:
        """Start the gateway, with ``env``, once all others are up. It is not awaited."""
        self.store.wait_ready()
        for simulator in self.simulators.values():
            simulator.wait_ready()
        write_policies(self.policies, {"main": self.box_entries}, self.provider.url)
        options = ("--redis", self.store.url, "--policies", self.policies, "--state", self._folder / "state")
        self._gateway = GatewayProcess.start(self._processes, *options, "--drain", str(DRAIN_S), env=env)

    def close(self) -> None:
        """End the gateway, then its store, and let go of what the processes do not own."""
        self.gateway.close()
        self.gateway.process.clean_up()
        self.store.close()

    @property
    def box_entries(self) -> dict[str, dict[str, str]]:
        """As fleet.yaml has the boxes."""
        entries = {name: {"url": box.url} for name, box in self.boxes.items()}
        entries["box-b"]["api_key"] = "${BOX_KEY}"
        return entries

    @property
    def policies(self) -> Path:
        """The folder of its policies."""
        return self._folder / "policies"

    @property
    def gateway(self) -> GatewayProcess:
        """The gateway. Raises AssertionError before ``open``."""
        assert self._gateway is not None, "the house was not opened"
        return self._gateway

    @property
    def simulators(self) -> dict[str, Simulator]:
        """Boxes and provider by name."""
        return {**self.boxes, PROVIDER: self.provider}

    # Asking

    async def ask(self, customer: Customer, adapter: str | None = None, *, stream: bool = True, **fields: Any) -> Asked:
        """One request, its every byte recorded. ``fields``: of the body, or what :class:`RawClient` takes."""
        adapter = adapter or customer.adapters[0]
        question = f"question {next(self._numbers)} of {customer.name}"
        client = RawClient(self.gateway.url, key=customer.key)
        recording = await client.chat(adapter, text=question, stream=stream, **fields)
        return Asked(customer, adapter, stream, question, recording)

    async def complete(self, customer: Customer, adapter: str, **fields: Any) -> Asked:
        """A stream of `/v1/completions`."""
        question = f"question {next(self._numbers)} of {customer.name}"
        client = RawClient(self.gateway.url, key=customer.key)
        body = {"model": adapter, "prompt": question, "stream": True, **fields}
        return Asked(customer, adapter, True, question, await client.ask("/v1/completions", body))

    async def crowd(self, *, customers: Iterable[Customer] = CROWD, times: int = 1, **fields: Any) -> list[Asked]:
        """Every customer asks for each of its adapters at the same time, plain and as a stream."""
        return list(
            await asyncio.gather(
                *(
                    self.ask(customer, adapter, stream=stream, **fields)
                    for _ in range(times)
                    for customer in customers
                    for adapter in customer.adapters
                    for stream in (True, False)
                )
            )
        )

    async def streams(self, count: int, *, customers: tuple[Customer, ...] = CROWD, **fields: Any) -> list[Asked]:
        """So many streams at the same time, of all adapters in turn."""
        pairs = [(customer, adapter) for customer in customers for adapter in customer.adapters]
        turns = itertools.islice(itertools.cycle(pairs), count)
        return list(await asyncio.gather(*(self.ask(*pair, **fields) for pair in turns)))

    async def traffic(self, nemesis: Callable[[], Awaitable[None]]) -> list[Asked]:
        """Every customer asks again and again, from before ``nemesis`` begins until after it has ended."""
        over = False

        async def keep_asking(customer: Customer, adapter: str, stream: bool) -> list[Asked]:
            asked = [await self.ask(customer, adapter, stream=stream)]
            while not over:
                await asyncio.sleep(THINKING_S)
                asked.append(await self.ask(customer, adapter, stream=stream))
            asked.append(await self.ask(customer, adapter, stream=stream))
            return asked

        async with asyncio.TaskGroup() as group:
            clients = [
                group.create_task(keep_asking(customer, adapter, stream))
                for customer in CROWD
                for adapter in customer.adapters
                for stream in (True, False)
            ]
            try:
                await nemesis()
            finally:
                over = True
        return [asked for client in clients for asked in client.result()]

    # Breaking

    @contextmanager
    def broken(self, targets: Iterable[str], *rules: Rule) -> Iterator[None]:
        """These fault rules at these boxes (or the provider), which have to act at least once."""
        admins = [self.simulators[target].admin for target in targets]
        for admin in admins:
            admin.faults(*rules)
        yield
        fired = [rule["fired"] for admin in admins for rule in admin.rules() if rule["fault"] not in SERVER_FAULTS]
        for admin in admins:
            admin.heal()
        assert not fired or any(fired), "the fault never acted: the test proves nothing"

    # Judging

    @property
    def slack_s(self) -> float:
        """What bounds on time have to allow for beside what they bound: on an idle machine little more than SLACK_S."""
        return SLACK_S + self._lag.s

    async def history(self, asked: Iterable[Asked]) -> History:
        """``asked`` with what arrived; waits as long as I4 allows for what still runs upstream."""
        waiting = [name for name, simulator in self.simulators.items() if simulator.running]
        loop = asyncio.get_running_loop()
        began = loop.time()
        arrived = self._arrived(waiting)
        while any(one.ended is None and one.question for one in arrived):
            if loop.time() > began + CANCELLED_WITHIN_S + self.slack_s:
                break
            await asyncio.sleep(0.02)
            arrived = self._arrived(waiting)
        return History(asked, arrived, lag_s=self._lag.s)

    async def judge(self, asked: Iterable[Asked], weather: Weather) -> History:
        """The history, after it was found to break no invariant."""
        history = await self.history(asked)
        found = complaints(history, weather)
        assert not found, "\n".join([f"{len(found)} complaints:", *found[:SHOWN]])
        return history

    def _arrived(self, names: Iterable[str]) -> list[Arrival]:
        return [Arrival.of(name, entry) for name in names for entry in self.simulators[name].admin.requests()]

    # Healing

    def heal(self) -> None:
        """Nothing is broken any more, and what had ended is being started."""
        for simulator in self.simulators.values():
            if not simulator.running:
                simulator.start()
            else:
                simulator.thaw()
                simulator.admin.heal()
        if not self.store.process.running:
            self.store.process.start()
        if not self.gateway.process.running:
            self.gateway.start_again()
        self._healed_at = time.monotonic()

    async def apply(self, folder: Path) -> None:
        """Put the policies in ``folder`` in force."""
        version = await self.store.apply(folder)
        await eventually(lambda: self.gateway.status()["policy"]["version"] == version, within_s=10)

    async def calm(self) -> None:
        """Everything runs, the gateway knows it, and nobody remembers anything. After ``heal``."""
        for simulator in self.simulators.values():
            await simulator.ready()
        await self.store.ready()
        await self.gateway.ready()
        await asyncio.sleep(self._healed_at + BUDGET_FILLS_S - time.monotonic())
        await self.recovered()
        for simulator in self.simulators.values():
            simulator.admin.forget()
        self._lag = Lag()

    async def recovered(self, *, within_s: float = HEALING_S) -> None:
        """Have the gateway use both boxes for every adapter again, and every provider. Raises AssertionError."""
        until = Until(within_s)
        while shut := [box for box in self.gateway.status()["boxes"] if box["state"] != "closed"]:
            assert not until.over, f"not back within {within_s} s: {shut}"
            for box in shut:
                # Who has no fallback tries a box that failed fast in spite of its open breaker.
                await self._ask_at(box["name"], HOOLI, HOOLI.adapters[0])
            await asyncio.sleep(0.02)
        while out := self._out_of_use():
            assert not until.over, f"still out of use after {within_s} s: {out}"
            for box, adapter in out:
                customer = next(customer for customer in EVERYBODY if adapter in customer.adapters)
                if box is None:
                    await self.ask(customer, adapter, stream=False)
                else:
                    await self._ask_at(box, customer, adapter)
            await asyncio.sleep(0.02)
        while shut := [provider for provider in self.gateway.status()["providers"] if provider["state"] != "closed"]:
            assert not until.over, f"not back within {within_s} s: {shut}"
            if any(provider["state"] != "backing_off" for provider in shut):
                # Its only fallback is the provider, which is thus tried even while its breaker is open.
                await self._ask_at(PROVIDER, INITECH, INITECH.adapters[0])
            await asyncio.sleep(0.02)
        while any(box["in_ramp"] for box in self.gateway.status()["boxes"]):
            assert not until.over, f"still in a ramp after {within_s} s"
            await asyncio.sleep(0.02)
        await self._cleared(until)

    async def _cleared(self, until: Until) -> None:
        """Have each adapter, and the provider, answer once: a failure or two in a row, and the end of a box that one
        adapter alone may have been at, show nowhere and are counted together with those of the next test."""
        left = {adapter: customer for customer in EVERYBODY for adapter in customer.adapters}
        while left:
            assert not until.over, f"not answered by themselves: {sorted(left)}"
            asked = await asyncio.gather(*(self.ask(left[adapter], adapter, stream=False) for adapter in left))
            for one in asked:
                if one.served_by.startswith("box:"):
                    del left[one.adapter]
        while not self.gateway.drill(INITECH.name):
            assert not until.over, "the provider does not answer"
            await asyncio.sleep(0.02)

    def _out_of_use(self) -> list[tuple[str | None, str]]:
        """Each box and adapter that have to be tried together. A suspected adapter is cleared by any answer of its own,
        and tried soonest at the box that it is said to have ended: None stands for whichever that is.
        """
        boxes = self.gateway.status()["boxes"]
        suspected = sorted({pair["adapter"] for box in boxes for pair in box["suspected_adapters"]})
        return [(None, adapter) for adapter in suspected] or [
            (box["name"], pair["adapter"])
            for box in boxes
            for pair in (*box["missing_adapters"], *box["failing_adapters"])
        ]

    async def _ask_at(self, target: str, customer: Customer, adapter: str) -> None:
        """Ask while all other boxes say that they are busy, so that the turn comes to this target."""
        others = [other.admin for name, other in self.boxes.items() if name != target]
        for admin in others:
            admin.fault("status", status=503, message=BUSY, adapter=adapter)
        await self.ask(customer, adapter, stream=False)
        for admin in others:
            admin.heal()
