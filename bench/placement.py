"""Where requests go, and what that costs in swaps and waiting: `python -m bench.placement` (`--help` lists options).

A discrete-event simulation, no sockets: boxes are `backend.simulator`'s model of vLLM's engine, whose costs are worked
out and not measured on a GPU; ours is the code that the gateway runs (`decide`, placement, slot model, saturation).
All policies get the same requests. The workload is that of the design: 600 requests a minute, Poisson, 40 adapters
whose shares follow Zipf's law, two boxes; then with bursts, and 1,000 adapters on 50 boxes at as many requests a box.

Whoever is silent for the budget is given up, and answered by the hosted provider; ours also sends there what no box
would answer in time, and what has waited in the gateway's line for most of the budget. The first part of a run, in
which ours learns the rates, is not counted, for none of them.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import count, cycle

from backend.planner.figures import quantile
from backend.simulator.engine_model import EngineModel
from backend.simulator.timeline import EngineTimeline
from gateway.dataplane.decide import WAIT_SHARE, decide
from gateway.errors import Reason
from gateway.fleet.box_load import BoxLoad
from gateway.fleet.engine_metrics import EngineReading
from gateway.fleet.placement import Placement, place
from gateway.fleet.routing import route
from gateway.fleet.traffic import Traffic
from gateway.fleet.waiting_line import Waiter, WaitingLine
from gateway.policy.compiled import CustomerPolicy, FleetSpec, ProviderSpec, ProviderStep

BUDGET_S = 2.0
"""The default `ttft_budget`."""
HOSTED_TTFT_S = 0.6
PROMPT_TOKENS = (100, 500)
ANSWER_TOKENS = (100, 400)
"""Uniform. Answers are the design's tool calls; it says nothing of prompts, and the costs were fitted to 200 tokens."""
CPU_POOL = 64
WARM_UP_S = 120.0
REBALANCE_S = 5.0
SCRAPE_S = 1.0
LINE_STEP_S = 0.02
"""While anybody waits in line, it is served so often; the gateway serves it whenever an answer ends."""
POLICIES = ("random", "round robin", "least in flight", "ours")

HOSTED = ProviderSpec("hosted", "openai/hosted", None)
POLICY = CustomerPolicy(
    name="anyone",
    fleet=FleetSpec("main", "base", ()),
    adapters=frozenset(),
    steps=(ProviderStep(HOSTED, HOSTED.model),),
    ttft_budget_s=BUDGET_S,
    plain_budget_s=30.0,
    deadline_s=60.0,
    stall_timeout_s=10.0,
    on_broken_stream="resume",
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One workload. ``burst``: so many distinct adapters at one moment, each ``burst_every_s``."""

    name: str
    adapters: int
    boxes: int
    slots: int
    zipf: float
    requests_per_s: float
    burst: int = 0
    burst_every_s: float = 15.0


MIXES = tuple(
    Scenario(f"{slots} slots, zipf {zipf}", 40, 2, slots, zipf, 10.0) for slots in (8, 16) for zipf in (0.6, 1.0, 1.4)
)
SCENARIOS = (
    *MIXES,
    *(Scenario(f"{slots} slots, zipf 1.0, bursts", 40, 2, slots, 1.0, 8.0, burst=24) for slots in (8, 16)),
    Scenario("1,000 on 50 boxes, 8 slots", 1000, 50, 8, 1.0, 250.0),
)


@dataclass(slots=True, eq=False)
class Request:
    id: str
    at_s: float
    adapter: str
    prompt: int
    answer: int
    counted: bool
    box: SimulatedBox | None = None
    homes: tuple[str, ...] = ()
    ttft_s: float = math.nan
    hosted: bool = False
    # What a box remembers of an attempt (gateway.fleet.box_load.Sent).
    streamed: bool = True
    began: float = 0.0
    silent_before: int = 0
    in_flight: int = 0


class SimulatedBox:
    """A box as `decide` sees it, over an engine's timeline."""

    fails_fast = True

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.model = EngineModel(max_loras=slots, max_cpu_loras=CPU_POOL)
        self.engine = EngineTimeline(self.model)
        self.load = BoxLoad(slots)
        self.requests: dict[str, Request] = {}
        self.finished = 0
        self.ttft_sum_s = 0.0
        self.ttft_count = 0

    def has_its_share(self, now: float) -> bool:
        return False

    def saturated(self, adapter: str | None, budget_s: float, now: float) -> bool:
        return self.load.saturated(adapter, budget_s, now)

    def condition(self, adapter: str | None, now: float) -> Reason | None:
        return None

    def submit(self, request: Request, now: float) -> None:
        request.began = now
        request.box = self
        request.silent_before, request.in_flight = self.load.began(request.adapter, streamed=True)
        self.requests[request.id] = request
        self.engine.submit(request.id, request.adapter, request.prompt, request.answer, now)

    def advance(self, now: float) -> None:
        for step in self.engine.advance(now):
            at_s = step.ended_s
            for id in step.first_tokens:
                if (request := self.requests.get(id)) is not None:
                    request.ttft_s = at_s - request.at_s
                    self.ttft_sum_s += request.ttft_s
                    self.ttft_count += 1
                    self.load.first_content(request, at_s)
                    self.load.attempts.answered()
            for id in step.finished:
                if self.requests.pop(id, None) is not None:
                    self.load.attempts.ended(_adapter_of(id), silent=False)
                    self.finished += 1

    def give_up(self, request: Request, now: float) -> None:
        self.load.gave_up(request, now)
        self.load.attempts.ended(request.adapter, silent=True)
        del self.requests[request.id]
        self.engine.abort(request.id, now)

    def scrape(self, now: float) -> None:
        model = self.model
        self.load.read(
            EngineReading(
                at_s=now,
                running=model.running,
                waiting_capacity=model.waiting_capacity,
                waiting_deferred=model.waiting_deferred,
                kv_cache_usage=model.kv_usage,
                preemptions_total=model.preemptions,
                prompt_tokens_total=model.prompt_tokens,
                generation_tokens_total=model.generated_tokens,
                requests_finished_total=self.finished,
                ttft_sum_s=self.ttft_sum_s,
                ttft_count=self.ttft_count,
            )
        )


def _adapter_of(id: str) -> str:
    return id.partition("/")[0]


@dataclass(slots=True, eq=False)
class Waiting(Waiter[SimulatedBox]):
    request: Request


class Ours:
    """Placement by measured rates, then `decide`, then the line where that says so."""

    def __init__(self, boxes: list[SimulatedBox], slots: int, seed: int, *, homes_only: bool) -> None:
        self.homes_only = homes_only
        self.by_name = {box.name: box for box in boxes}
        self.slots = dict.fromkeys(self.by_name, slots)
        self.traffic = Traffic(0.0)
        self.random = random.Random(seed)
        self.placement = Placement(boxes=tuple(self.by_name))
        self.moved = 0
        self.line: WaitingLine[SimulatedBox] = WaitingLine(self._take, self._push_out)

    def rebalance(self, now: float) -> None:
        self.placement = place(self.traffic.rates(now), self.slots, self.placement, uniform=self.random.random)
        self.moved += self.placement.moved

    def choose(self, request: Request, now: float) -> SimulatedBox | Waiting | None:
        self.traffic.seen(request.adapter)
        homes = self.placement.homes.get(request.adapter, ())
        order = [self.by_name[name] for name in self.placement.order(request.adapter)]
        first = order if self.homes_only else route(order, max(1, len(homes)), request.adapter)
        plan = decide(POLICY, first, adapter=request.adapter, stream=True, fallback_allowed=True, now=now)
        request.homes = homes or (order[0].name,)
        if plan.waits:
            return Waiting(request.adapter, 1, first, BUDGET_S, now, request)
        box = plan.own[0] if plan.own else None
        assert box is None or isinstance(box, SimulatedBox)
        if box is None:
            order[0].load.denied(request.adapter, now)
        return box

    def give_up_waiting(self, waiting: Waiting, now: float) -> None:
        """It has waited for long enough, if it still does."""
        if waiting.request.box is None:
            self.line.leave(waiting)
            self._push_out(waiting)
            waiting.boxes[0].load.denied(waiting.adapter, now)

    def _take(self, waiter: Waiter[SimulatedBox], box: SimulatedBox, now: float) -> bool:
        assert isinstance(waiter, Waiting)
        box.submit(waiter.request, now)
        return True

    def _push_out(self, waiter: Waiter[SimulatedBox]) -> None:
        assert isinstance(waiter, Waiting)
        waiter.request.hosted = True


def _in_flight(box: SimulatedBox) -> int:
    return box.load.attempts.total


@dataclass(slots=True)
class Result:
    scenario: str
    policy: str
    requests: int = 0
    swaps_per_request: float = 0.0
    swaps_to_random: float = math.nan
    disk_loads_per_request: float = 0.0
    modelled_swaps_per_request: float = 0.0
    ttft_p50_s: float = 0.0
    ttft_p95_s: float = 0.0
    ttft_p99_s: float = 0.0
    worst_adapter_p99_s: float = 0.0
    spilled: float = 0.0
    hosted: float = 0.0
    goodput: float = 0.0
    busiest_box: float = 0.0
    moved_homes: int = 0
    _ttfts: dict[str, list[float]] = field(default_factory=dict, repr=False)


def arrivals(scenario: Scenario, seconds: float, seed: int) -> Iterator[Request]:
    draw = random.Random(f"{scenario.name}/{seed}")
    names = [f"a{number:04}" for number in range(scenario.adapters)]
    draw.shuffle(names)
    weights = [(rank + 1) ** -scenario.zipf for rank in range(scenario.adapters)]
    numbers = count()

    def request(at_s: float, adapter: str) -> Request:
        prompt, answer = draw.randint(*PROMPT_TOKENS), draw.randint(*ANSWER_TOKENS)
        return Request(f"{adapter}/{next(numbers)}", at_s, adapter, prompt, answer, at_s >= WARM_UP_S)

    end_s = WARM_UP_S + seconds
    at_s, burst_s = draw.expovariate(scenario.requests_per_s), scenario.burst_every_s if scenario.burst else math.inf
    while min(at_s, burst_s) < end_s:
        if burst_s <= at_s:
            yield from [request(burst_s, adapter) for adapter in draw.sample(names, scenario.burst)]
            burst_s += scenario.burst_every_s
        else:
            yield request(at_s, draw.choices(names, weights)[0])
            at_s += draw.expovariate(scenario.requests_per_s)


def run(scenario: Scenario, policy: str, seconds: float, seed: int, *, homes_only: bool = False) -> Result:
    boxes = [SimulatedBox(f"box-{number}", scenario.slots) for number in range(scenario.boxes)]
    requests = list(arrivals(scenario, seconds, seed))
    asked = _asked_by(requests)
    hot = sorted(asked, key=lambda name: asked[name])[-CPU_POOL:]
    for box in boxes:
        for adapter in hot:
            box.engine.preload(adapter, 0.0)
    ours = Ours(boxes, scenario.slots, seed, homes_only=homes_only)
    choose = _chooser(policy, boxes, ours, seed)
    timers: list[tuple[float, int, Callable[[float], None]]] = []
    numbers = count()

    def at(when_s: float, what: Callable[[float], None]) -> None:
        heapq.heappush(timers, (when_s, next(numbers), what))

    def every(interval_s: float, what: Callable[[float], None]) -> None:
        def again(now: float) -> None:
            what(now)
            at(now + interval_s, again)

        at(interval_s, again)

    def scrape(now: float) -> None:
        for box in boxes:
            box.scrape(now)

    before = [0, 0, 0, 0]

    def begin(now: float) -> None:
        before[:] = _counts(boxes, ours)

    at(WARM_UP_S, begin)
    if policy == "ours":
        every(SCRAPE_S, scrape)
        every(REBALANCE_S, ours.rebalance)

    def pass_time(now: float) -> None:
        while timers and timers[0][0] <= now:
            at_s, _, what = heapq.heappop(timers)
            for box in boxes:
                box.advance(at_s)
            what(at_s)
        for box in boxes:
            box.advance(now)

    def wait(waiting: Waiting, now: float) -> None:
        nobody_waited = not len(ours.line)
        ours.line.enter(waiting, now)
        if nobody_waited and len(ours.line):
            at(now + LINE_STEP_S, serve_line)

        def give_up(now: float) -> None:
            ours.give_up_waiting(waiting, now)
            if waiting.request.hosted:
                waiting.request.ttft_s = now - waiting.request.at_s + HOSTED_TTFT_S

        at(now + WAIT_SHARE * BUDGET_S, give_up)

    def serve_line(now: float) -> None:
        ours.line.serve(now)
        if len(ours.line):
            at(now + LINE_STEP_S, serve_line)

    def send(request: Request) -> None:
        target = choose(request, request.at_s)
        if target is None:
            request.hosted, request.ttft_s = True, HOSTED_TTFT_S
        elif isinstance(target, Waiting):
            wait(target, request.at_s)
        else:
            target.submit(request, request.at_s)

        def lose_patience(now: float) -> None:
            if math.isnan(request.ttft_s) and request.box is not None:
                request.box.give_up(request, now)
                request.hosted, request.ttft_s = True, BUDGET_S + HOSTED_TTFT_S

        at(request.at_s + BUDGET_S, lose_patience)

    for request in requests:
        pass_time(request.at_s)
        send(request)
    after = _counts(boxes, ours)
    pass_time(requests[-1].at_s + BUDGET_S)
    return _result(scenario, policy, requests, boxes, [now - then for now, then in zip(after, before, strict=True)])


def _asked_by(requests: list[Request]) -> dict[str, int]:
    asked: dict[str, int] = {}
    for request in requests:
        asked[request.adapter] = asked.get(request.adapter, 0) + 1
    return asked


def _counts(boxes: list[SimulatedBox], ours: Ours) -> list[int]:
    return [
        sum(box.model.loras.swaps for box in boxes),
        sum(box.model.loras.disk_loads for box in boxes),
        sum(box.load.slots.swaps for box in boxes),
        ours.moved,
    ]


def _chooser(
    policy: str, boxes: list[SimulatedBox], ours: Ours, seed: int
) -> Callable[[Request, float], SimulatedBox | Waiting | None]:
    if policy == "ours":
        return ours.choose
    draw = random.Random(seed)
    turns = cycle(boxes)
    return {
        "random": lambda request, now: draw.choice(boxes),
        "round robin": lambda request, now: next(turns),
        "least in flight": lambda request, now: min(draw.sample(boxes, len(boxes)), key=_in_flight),
    }[policy]


def _result(
    scenario: Scenario, policy: str, requests: list[Request], boxes: list[SimulatedBox], counts: list[int]
) -> Result:
    counted = [request for request in requests if request.counted]
    total = len(counted)
    by_adapter: dict[str, list[float]] = {}
    by_box = dict.fromkeys((box.name for box in boxes), 0)
    for request in counted:
        by_adapter.setdefault(request.adapter, []).append(request.ttft_s)
        if request.box is not None:
            by_box[request.box.name] += 1
    ttfts = sorted(request.ttft_s for request in counted)
    good = sum(not request.hosted and request.ttft_s <= BUDGET_S for request in counted)
    return Result(
        scenario=scenario.name,
        policy=policy,
        requests=total,
        swaps_per_request=counts[0] / total,
        disk_loads_per_request=counts[1] / total,
        modelled_swaps_per_request=counts[2] / total,
        moved_homes=counts[3],
        ttft_p50_s=quantile(ttfts, 0.5),
        ttft_p95_s=quantile(ttfts, 0.95),
        ttft_p99_s=quantile(ttfts, 0.99),
        worst_adapter_p99_s=max(quantile(sorted(one), 0.99) for one in by_adapter.values()),
        spilled=sum(
            request.box is None or request.box.name not in request.homes for request in counted if request.homes
        )
        / total,
        hosted=sum(request.hosted for request in counted) / total,
        goodput=good / total,
        busiest_box=max(by_box.values()) * len(boxes) / max(1, sum(by_box.values())),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.placement", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="of traffic that count, of 1,000 adapters a fifth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--homes-only", action="store_true", help="ours without passing over a full home")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: list[Result] = []
    if not options.json:
        print(HEAD)
    for scenario in SCENARIOS:
        if options.only not in scenario.name:
            continue
        if not options.json:
            print(scenario.name)
        first: Result | None = None
        for policy in POLICIES:
            seconds = options.seconds / 5 if scenario.boxes > 2 else options.seconds
            result = run(scenario, policy, seconds, options.seed, homes_only=options.homes_only)
            first = first or result
            if first.swaps_per_request:
                result.swaps_to_random = result.swaps_per_request / first.swaps_per_request
            results.append(result)
            if not options.json:
                print(row(result), flush=True)
    if not options.json:
        print("all mixes without bursts: ours, swaps to random's")
        for slots in sorted({scenario.slots for scenario in MIXES}):
            names = {scenario.name for scenario in MIXES if scenario.slots == slots}
            print(f"  {slots:2} slots{'':18}{pooled(results, names):10.2f}")
    if options.json:
        json.dump([asdict(result) for result in results], sys.stdout, indent=1)
        print()


def pooled(results: list[Result], names: set[str]) -> float:
    """Swaps of all requests in the scenarios ``names``: ours as a share of random's."""
    swaps = dict.fromkeys(POLICIES, 0.0)
    for result in results:
        if result.scenario in names:
            swaps[result.policy] += result.swaps_per_request * result.requests
    return swaps["ours"] / swaps["random"] if swaps["random"] else math.nan


HEAD = (
    f"{'':18}{'swaps/req':>10}{'to random':>10}{'p50 ms':>8}{'p95 ms':>8}{'p99 ms':>8}{'worst p99':>10}"
    f"{'spilled':>9}{'hosted':>8}{'goodput':>9}{'busiest':>9}{'moved':>7}"
)


def row(result: Result) -> str:
    ms = 1000.0
    return (
        f"  {result.policy:16}{result.swaps_per_request:10.3f}{result.swaps_to_random:10.2f}"
        f"{result.ttft_p50_s * ms:8.0f}{result.ttft_p95_s * ms:8.0f}{result.ttft_p99_s * ms:8.0f}"
        f"{result.worst_adapter_p99_s * ms:10.0f}{result.spilled:9.1%}{result.hosted:8.1%}{result.goodput:9.1%}"
        f"{result.busiest_box:9.2f}{result.moved_homes:7}"
    )


if __name__ == "__main__":
    main()
