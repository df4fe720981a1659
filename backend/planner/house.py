"""Modelled boxes, a stand-in provider and the whole gateway before them, in one process, on a virtual clock.

What decides is the code that serves: ``DataPlane`` from the ASGI call on, with its plans, journeys, lines and limits,
and ``Fleets`` with its probes, readings of metrics, breakers and placement. The boxes are the simulator's model of
vLLM's engine behind its HTTP server. Only time, the network and the listening socket are not real.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

from backend.planner.asked import Asked
from backend.planner.coarse import CoarseBox, CoarseProvider
from backend.planner.in_process import ask_in_process
from backend.planner.scenario import Option, Scenario
from backend.planner.terms import adapters_of, cpu_pool, fleet_of, key_of, moved
from backend.simulator.app import App
from backend.simulator.engine import Engine, Pace
from backend.simulator.faults import Rules
from backend.simulator.modelled_engine import ModelledEngine
from backend.simulator.server import Server, ServerSettings
from backend.traffic.arrival import Arrival
from gateway.accounts.accounts import Accounts
from gateway.clock import wall_s
from gateway.dataplane.attempt import Asker
from gateway.dataplane.endpoint import DataPlane
from gateway.dataplane.record import Record
from gateway.fleet.fleet import Fleets
from gateway.fleet.hosted import Hosted
from gateway.observe.alarms import Alarms
from gateway.observe.events import Events
from gateway.observe.metrics import GatewayMetrics, Registry
from gateway.policy.compiled import CompiledPolicy
from gateway.upstream.providers import Providers

CONTEXT = 8192
"""``--max-model-len``, unless the traffic needs more."""
JOURNAL = 100
"""Nobody asks the simulator what it was asked."""
CHAT_FRAME = 4
"""Tokens of a chat of one message beside its words, as the simulator counts."""


class House:
    """To be made in the running (virtual) loop."""

    def __init__(self, scenario: Scenario, option: Option) -> None:
        self._scenario = scenario
        self._option = option
        self._loop = asyncio.get_running_loop()
        self._servers: dict[str, Server] = {}
        self.engines: dict[str, ModelledEngine] = {}
        self.current: CompiledPolicy | None = None

    async def start(self) -> None:
        """Boxes first, with as many adapters loaded as fit. Raises PlanError, BadKnobs."""
        scenario, option = self._scenario, self._option
        fleet = fleet_of(scenario.policy, scenario.arrivals)
        own = [box.name for box in fleet.boxes]
        names = [own[n] if n < len(own) else f"box-{n + 1}" for n in range(option.boxes)]
        adapters = {name: f"/adapters/{name}" for name in adapters_of(scenario.policy, fleet)}
        pool = cpu_pool(scenario.policy, fleet, option)
        for name in names:
            await self._serve(name, self._box(name, fleet.base_model, adapters, pool))
        await self._serve("", self._provider())
        urls = {name: self._url(name) for name in names}
        self.current = moved(scenario.policy, fleet, option, urls, self._url(""))
        clock, uniform = self._loop.time, random.Random(scenario.seed).random  # noqa: S311 - no secret
        metrics, events = GatewayMetrics(Registry()), Events(100)
        alarms = Alarms(metrics, events)
        self.fleets = Fleets(metrics=metrics, alarms=alarms, events=events, uniform=uniform, clock=clock)
        self._providers = Providers(state_dir=Path("/nowhere"), alarms=alarms)
        hosted = Hosted(metrics=metrics, alarms=alarms, events=events, clock=clock)
        self.accounts = Accounts(metrics, clock=clock)
        self._dataplane = DataPlane(
            self,
            self.fleets,
            Asker(self._providers, hosted),
            Record(metrics, events, alarms),
            uniform=uniform,
            accounts=self.accounts,
        )
        for follower in (self.fleets, self._providers, hosted, self.accounts):
            follower.follow(self.current)

    async def ask(self, arrival: Arrival, asked: Asked) -> None:
        """One chat request, straight to the data plane; ``asked`` says what became of it."""
        loop = self._loop
        began_s = loop.time()
        fields = {"model": arrival.model, "stream": arrival.streamed, "max_tokens": arrival.output_tokens}
        # As many words as `failsoft load` sends; the simulator counts the spaces between them.
        fields["messages"] = [{"role": "user", "content": " " * (arrival.prompt_tokens - 1)}]
        heard = await ask_in_process(self._dataplane, key_of(arrival.customer), fields)
        asked.status, asked.broken = heard.status, heard.broken
        asked.served_by = heard.headers.get("x-failsoft-served-by", "")
        asked.degraded = heard.headers.get("x-failsoft-degraded")
        asked.ttft_s = heard.first_s - began_s
        asked.e2e_s = loop.time() - began_s

    def busiest(self) -> str:
        """The box with most of the customers' requests, of those that live."""
        return max(self._living, key=self.fleets.customers_in_flight)

    async def kill(self, box: str) -> None:
        """Its process is gone, with all that it had in flight, and nobody listens at its port any more."""
        server = self._servers.pop(box)
        server.stop()
        await server.wait()

    @property
    def swaps(self) -> int:
        """Adapters that were copied into a slot, at all boxes."""
        return sum(engine.model.loras.swaps for engine in self.engines.values())

    @property
    def disk_loads(self) -> int:
        """Those of them that were read from disk."""
        return sum(engine.model.loras.disk_loads for engine in self.engines.values())

    @property
    def hosted_nano_usd(self) -> int:
        """What the providers' answers have cost."""
        return sum(cell[4] for cell in self.accounts.usage.total.values())

    @property
    def unpriced(self) -> int:
        """Answers of providers whose price is not known."""
        return sum(cell[6] for cell in self.accounts.usage.total.values())

    async def close(self) -> None:
        """End everything."""
        if self.current is not None:
            await self.fleets.close()
            await self._providers.close()
            await self.accounts.close()
        for server in self._servers.values():
            server.stop()
            await server.wait()

    @property
    def _living(self) -> list[str]:
        return [name for name in self._servers if name]

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._servers[name].port}"

    async def _serve(self, name: str, app: App) -> None:
        settings = ServerSettings(journal_capacity=JOURNAL, seed=self._scenario.seed)
        server = self._servers[name] = Server(app, settings, Rules(self._scenario.seed))
        await server.start()

    def _box(self, name: str, base: str, adapters: dict[str, str], pool: int) -> CoarseBox:
        scenario = self._scenario
        # One token more than is asked for, so that an answer ends where its limit is.
        longest, context = scenario.longest_answer + 1, max(CONTEXT, scenario.longest + CHAT_FRAME)
        knobs = scenario.knobs
        if knobs.max_cpu_loras is None:
            knobs = replace(knobs, max_cpu_loras=pool)
        engine = self.engines[name] = ModelledEngine(
            knobs.model(max_loras=self._option.slots, longest=context + longest),
            base=base,
            adapters=dict(adapters),
            pace=Pace(tokens=longest),
            max_queued=None,
            max_model_len=context,
            clock=self._loop.time,
            wall=wall_s,
            merged=True,
        )
        return CoarseBox(engine, api_key=None, max_model_len=context, any_adapter=False)

    def _provider(self) -> CoarseProvider:
        scenario = self._scenario
        pace = Pace(scenario.provider.ttft_s, scenario.provider.itl_s, scenario.longest_answer + 1)
        engine = Engine(base="hosted", adapters={}, pace=pace, max_loras=0, max_queued=None, clock=self._loop.time)
        return CoarseProvider(engine, api_key=None)
