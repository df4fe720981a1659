"""One of two boxes freezes in mid-traffic; how long does anybody wait? `python -m bench.frozen_box` (`--help`).

The whole gateway runs, from the ASGI call to the byte: `DataPlane` with its journeys, the fleet with its probes, its
readings of metrics, its placement, before two simulated boxes (the model of vLLM's engine, whose costs are worked out
and not measured on a GPU) and a stand-in provider. Only time and the network are not real
(`backend.planner.virtual_loop`), so that a run with one seed gives the same waits everywhere, to the millisecond.

The bound that every request has to keep: its `ttft_budget`, plus the time that the provider takes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backend.planner.in_process import ask_in_process
from backend.planner.virtual_loop import VirtualLoop
from backend.simulator.app import App
from backend.simulator.box import Box
from backend.simulator.engine import Engine, Pace
from backend.simulator.engine_model import EngineModel
from backend.simulator.faults import Rules
from backend.simulator.hosted import HostedOpenAI
from backend.simulator.modelled_engine import ModelledEngine
from backend.simulator.server import Server, ServerSettings
from gateway.clock import wall_s
from gateway.dataplane.attempt import Asker
from gateway.dataplane.endpoint import DataPlane
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
    ProviderSpec,
    ProviderStep,
)
from gateway.tasks import TaskSet
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool
from gateway.upstream.providers import Providers

KEY = "fs-key-of-all"
BOXES = ("box-a", "box-b")
CPU_POOL = 64
HOSTED_TTFT_S = 0.6
HOSTED_ITL_S = 0.01
SLACK_S = 0.01
"""Timers look in steps of a millisecond, and a request meets several."""
PROMPT_TOKENS = (100, 500)
LONGEST_MODEL_LEN = 8192


@dataclass(frozen=True, slots=True)
class Scenario:
    """Times in seconds of virtual time. The defaults are the design's workload and policy. ``answer``: tokens, from
    and to; ``frozen_s`` None: to the end. ``engine_only``: `/health` and `/metrics` go on."""

    seconds: float = 60.0
    freeze_at_s: float = 20.0
    frozen_s: float | None = None
    engine_only: bool = False
    adapters: int = 40
    slots: int = 8
    zipf: float = 1.0
    requests_per_s: float = 10.0
    answer: tuple[int, int] = (100, 400)
    ttft_budget_s: float = 2.0
    seed: int = 1

    @property
    def bound_s(self) -> float:
        """No request may wait longer for its first content."""
        return self.ttft_budget_s + HOSTED_TTFT_S + SLACK_S


@dataclass(slots=True)
class Asked:
    """One request. ``waited_s``: to its first content, or to the error that it got instead; times since the start."""

    adapter: str
    at_s: float
    waited_s: float = math.nan
    status: int = 0
    served_by: str = ""
    degraded: str | None = None
    attempts: int = 0
    broken: bool = False
    ended_s: float = math.nan


@dataclass(slots=True)
class Result:
    """What happened. ``frozen``: which box; ``ejected_s``: seconds from the freeze until its circuit was open."""

    scenario: Scenario
    asked: list[Asked] = field(default_factory=list)
    frozen: str = ""
    ejected_s: float | None = None
    back_s: float | None = None

    @property
    def late(self) -> list[Asked]:
        """Those that waited for longer than the bound."""
        return [one for one in self.asked if not one.waited_s <= self.scenario.bound_s]

    @property
    def longest(self) -> Asked:
        """The request that waited longest."""
        return max(self.asked, key=lambda one: one.waited_s)

    def after(self, at_s: float, until_s: float = math.inf) -> list[Asked]:
        """Those asked from ``at_s`` on and before ``until_s``."""
        return [one for one in self.asked if at_s <= one.at_s < until_s]


class House:
    """Two boxes, a provider and a gateway in the running (virtual) loop."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._loop = asyncio.get_running_loop()
        self.began_s = self._loop.time()
        self._servers: dict[str, Server] = {}
        self._ask_control: dict[str, Pool] = {}
        self.adapters = [f"a{number:03}" for number in range(scenario.adapters)]

    async def start(self) -> None:
        """Boxes first, with as many adapters loaded as fit."""
        for name in BOXES:
            await self._serve(name, self._box())
        await self._serve("hosted", self._provider())
        self.current = self._policy()
        metrics = GatewayMetrics(Registry())
        self.events = Events(10_000)
        alarms = Alarms(metrics, self.events)
        clock = self._loop.time
        uniform = random.Random(self._scenario.seed).random
        self.fleets = Fleets(metrics=metrics, alarms=alarms, events=self.events, uniform=uniform, clock=clock)
        self._providers = Providers(state_dir=Path("/nowhere"), alarms=alarms)
        hosted = Hosted(metrics=metrics, alarms=alarms, events=self.events, clock=clock)
        record = Record(metrics, self.events, alarms)
        self._dataplane = DataPlane(self, self.fleets, Asker(self._providers, hosted), record)
        for follower in (self.fleets, self._providers, hosted):
            follower.follow(self.current)

    async def ask(self, adapter: str, prompt: int, answer: int) -> Asked:
        """One streamed chat request, straight to the data plane."""
        loop = self._loop
        asked = Asked(adapter, loop.time() - self.began_s)
        fields = {"model": adapter, "stream": True, "max_tokens": answer}
        fields["messages"] = [{"role": "user", "content": "word " * prompt}]
        heard = await ask_in_process(self._dataplane, KEY, fields)
        asked.status, asked.broken = heard.status, heard.broken
        asked.served_by = heard.headers["x-failsoft-served-by"]
        asked.degraded = heard.headers.get("x-failsoft-degraded")
        asked.attempts = int(heard.headers["x-failsoft-attempts"])
        asked.waited_s = heard.first_s - self.began_s - asked.at_s
        asked.ended_s = loop.time() - self.began_s
        return asked

    async def freeze(self, box: str, frozen: bool) -> None:
        """As an operator's SIGSTOP, or an engine's hang, would."""
        rules = [{"fault": "freeze", "healthy": self._scenario.engine_only}] if frozen else []
        pool = self._ask_control[box]
        head = b"POST /simulator/faults HTTP/1.1\r\nhost: control\r\ncontent-type: application/json\r\n"
        exchange = await pool.exchange(head, json.dumps(rules).encode(), self._loop.time() + 1.0)
        await exchange.read_all(1 << 20)
        assert exchange.status == 200

    def in_flight(self, box: str) -> int:
        """Customers' attempts there."""
        return self.fleets.customers_in_flight(box)

    async def close(self) -> None:
        """End everything."""
        await self.fleets.close()
        await self._providers.close()
        for pool in self._ask_control.values():
            await pool.close()
        for server in self._servers.values():
            server.stop()
            await server.wait()

    async def _serve(self, name: str, app: App) -> None:
        server = self._servers[name] = Server(app, ServerSettings(), Rules(self._scenario.seed))
        await server.start()
        self._ask_control[name] = Pool(Origin.parse(f"http://127.0.0.1:{server.control_port}"))

    def _box(self) -> Box:
        scenario = self._scenario
        engine = ModelledEngine(
            EngineModel(max_loras=scenario.slots, max_cpu_loras=max(CPU_POOL, scenario.slots)),
            base="base",
            adapters={name: f"/adapters/{name}" for name in self.adapters},
            pace=Pace(tokens=max(scenario.answer)),
            max_queued=None,
            max_model_len=LONGEST_MODEL_LEN,
            clock=self._loop.time,
            wall=wall_s,
        )
        return Box(engine, api_key=None, max_model_len=LONGEST_MODEL_LEN, any_adapter=False)

    def _provider(self) -> HostedOpenAI:
        pace = Pace(HOSTED_TTFT_S, HOSTED_ITL_S, max(self._scenario.answer))
        engine = Engine(base="hosted", adapters={}, pace=pace, max_loras=0, max_queued=None, clock=self._loop.time)
        return HostedOpenAI(engine, api_key=None)

    def _policy(self) -> CompiledPolicy:
        urls = {name: f"http://127.0.0.1:{server.port}" for name, server in self._servers.items()}
        slots = self._scenario.slots
        fleet = FleetSpec(
            "main", "base", tuple(BoxSpec(name, "main", urls[name], slots, max(CPU_POOL, slots)) for name in BOXES)
        )
        hosted = ProviderSpec("hosted", "openai/generic", f"{urls['hosted']}/v1", "sk-any")
        customer = CustomerPolicy(
            name="all",
            fleet=fleet,
            adapters=frozenset(self.adapters),
            steps=(ProviderStep(hosted, hosted.model),),
            ttft_budget_s=self._scenario.ttft_budget_s,
            plain_budget_s=30.0,
            deadline_s=60.0,
            stall_timeout_s=10.0,
            on_broken_stream="error",
        )
        digest = hashlib.sha256(KEY.encode()).digest()
        keys = {digest: ApiKey(digest, customer)}
        return CompiledPolicy(1, "bench", 0, {"main": fleet}, {"hosted": hosted}, {"all": customer}, keys)


def run(scenario: Scenario) -> Result:
    """Run it to the end of its last answer."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(scenario))


async def _run(scenario: Scenario) -> Result:
    draw = random.Random(f"frozen box/{scenario.seed}")
    house = House(scenario)
    await house.start()
    result = Result(scenario)
    loop, tasks = asyncio.get_running_loop(), TaskSet()
    asking: list[asyncio.Task[Asked]] = []
    names = list(house.adapters)
    draw.shuffle(names)
    weights = [(rank + 1) ** -scenario.zipf for rank in range(len(names))]
    breaking = tasks.spawn(_freeze(house, scenario, result), name="the freeze")
    try:
        at_s = draw.expovariate(scenario.requests_per_s)
        while at_s < scenario.seconds:
            await asyncio.sleep(max(0.0, house.began_s + at_s - loop.time()))
            (adapter,) = draw.choices(names, weights)
            one = house.ask(adapter, draw.randint(*PROMPT_TOKENS), draw.randint(*scenario.answer))
            asking.append(tasks.spawn(one, name=f"request {len(asking)}"))
            at_s += draw.expovariate(scenario.requests_per_s)
        result.asked = [await task for task in asking]
        await breaking
    finally:
        await tasks.close()
        await house.close()
    return result


async def _freeze(house: House, scenario: Scenario, result: Result) -> None:
    """Freeze the busier box, and note when the gateway keeps away from it and when it is back."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(scenario.freeze_at_s)
    result.frozen = max(BOXES, key=house.in_flight)
    await house.freeze(result.frozen, True)
    frozen_at = loop.time()
    end = frozen_at + (scenario.frozen_s if scenario.frozen_s is not None else scenario.seconds)
    box = house.fleets.find(result.frozen)
    assert box is not None
    while loop.time() < min(end, house.began_s + scenario.seconds):
        if result.ejected_s is None and not box.breaker.closed:
            result.ejected_s = loop.time() - frozen_at
        await asyncio.sleep(0.01)
    if scenario.frozen_s is None:
        return
    await house.freeze(result.frozen, False)
    thawed_at = loop.time()
    while not box.breaker.closed:  # noqa: ASYNC110  (a look costs no time here)
        await asyncio.sleep(0.01)
    result.back_s = loop.time() - thawed_at


def report(result: Result) -> dict[str, Any]:
    """The figures, as JSON can say them."""
    scenario, longest = result.scenario, result.longest
    freeze = scenario.freeze_at_s
    ejected = freeze + (result.ejected_s if result.ejected_s is not None else math.inf)
    parts = {
        "before": result.after(0.0, freeze),
        "until it was ejected": result.after(freeze, ejected),
        "from then on": result.after(ejected),
    }
    return {
        "frozen": result.frozen,
        "ejected_s": result.ejected_s,
        "back_s": result.back_s,
        "bound_s": scenario.bound_s,
        "longest_wait_s": longest.waited_s,
        "longest": asdict(longest),
        "late": len(result.late),
        "errors": sum(one.status != 200 for one in result.asked),
        "broken_streams": sum(one.broken for one in result.asked),
        "parts": {name: _part(asked) for name, asked in parts.items()},
    }


def _part(asked: list[Asked]) -> dict[str, Any]:
    waits = sorted(one.waited_s for one in asked)
    return {
        "requests": len(asked),
        "median_s": waits[len(waits) // 2] if waits else None,
        "p95_s": waits[max(0, math.ceil(0.95 * len(waits)) - 1)] if waits else None,
        "longest_s": waits[-1] if waits else None,
        "served_by": dict(sorted(Counter(one.served_by for one in asked).items())),
        "degraded": dict(sorted(Counter(one.degraded for one in asked if one.degraded).items())),
    }


def main() -> None:
    default = Scenario()
    parser = argparse.ArgumentParser(prog="python -m bench.frozen_box", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of traffic, in virtual time")
    parser.add_argument("--freeze-at", type=float, default=default.freeze_at_s)
    parser.add_argument("--frozen", type=float, default=None, help="seconds after which it thaws; never, if not given")
    parser.add_argument("--engine-only", action="store_true", help="the server goes on answering /health and /metrics")
    parser.add_argument("--requests-per-s", type=float, default=default.requests_per_s)
    parser.add_argument("--slots", type=int, default=default.slots)
    parser.add_argument("--budget", type=float, default=default.ttft_budget_s, help="ttft_budget in seconds")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    scenario = Scenario(
        seconds=options.seconds,
        freeze_at_s=options.freeze_at,
        frozen_s=options.frozen,
        engine_only=options.engine_only,
        requests_per_s=options.requests_per_s,
        slots=options.slots,
        ttft_budget_s=options.budget,
        seed=options.seed,
    )
    found = report(run(scenario))
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    else:
        _print(found, time.monotonic() - began)
    sys.exit(1 if found["late"] or found["errors"] else 0)


def _print(found: dict[str, Any], took_s: float) -> None:
    ejected_s = found["ejected_s"]
    print(
        f"{found['frozen']} froze; its circuit was open "
        + ("never" if ejected_s is None else f"after {ejected_s:.2f} s")
        + ("" if found["back_s"] is None else f", and closed {found['back_s']:.2f} s after the thaw")
    )
    for name, part in found["parts"].items():
        if not part["requests"]:
            continue
        who = ", ".join(f"{who} {count}" for who, count in part["served_by"].items())
        why = ", ".join(f"{why} {count}" for why, count in part["degraded"].items())
        print(
            f"  {name:22}{part['requests']:5} requests, first content p50 {part['median_s']:.3f} s, "
            f"p95 {part['p95_s']:.3f} s, longest {part['longest_s']:.3f} s: {who}" + (f" ({why})" if why else "")
        )
    longest = found["longest"]
    print(
        f"longest wait {found['longest_wait_s']:.3f} s, bound {found['bound_s']:.3f} s: asked {longest['at_s']:.2f} s "
        f"after the start, answered by {longest['served_by']} in {longest['attempts']} attempts"
    )
    print(
        f"{found['late']} requests waited longer than the bound, {found['errors']} got an error, "
        f"{found['broken_streams']} streams broke after their first content; {took_s:.1f} s of real time"
    )


if __name__ == "__main__":
    main()
