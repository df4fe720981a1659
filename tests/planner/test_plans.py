"""A plan is what the gateway's own code would do with the traffic, at the same times."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from backend.planner.bill import HOURS_A_MONTH, Prices
from backend.planner.figures import degraded_over_time, figures_of
from backend.planner.goal import DEFAULT, read_goal
from backend.planner.hopeless import Hopeless
from backend.planner.house import House
from backend.planner.run import run
from backend.planner.scenario import Option, ProviderPace, Scenario
from backend.planner.study import Studying
from backend.planner.terms import PlanError, compiled, made_up
from backend.planner.virtual_loop import VirtualLoop
from backend.planner.what_if import Traffic, WhatIf
from backend.simulator.box import Box
from backend.simulator.engine import Engine, Pace
from backend.simulator.engine_knobs import ModelKnobs
from backend.simulator.hosted import HostedOpenAI
from backend.simulator.modelled_engine import ModelledEngine
from backend.traffic.arrival import Arrival
from backend.traffic.mix import TrafficMix
from backend.traffic.schedule import schedule
from gateway.clock import wall_s
from gateway.policy.models import Box as BoxOf
from gateway.policy.models import CustomerFile, Fleet, FleetFile, Limits, Rules, StaticStep
from gateway.policy.policy_set import PolicySet

BUSY = TrafficMix.model_validate(
    {
        "requests_per_minute": 600,
        "adapters": 24,
        "duration": "15s",
        "warm_up": "2s",
        "prompt_tokens": {"uniform": [20, 400]},
        "output_tokens": {"uniform": [1, 300]},
        "stream": 0.9,
    }
)


def scenario(mix: TrafficMix = BUSY, **changes: object) -> Scenario:
    arrivals = schedule(mix)
    made = Scenario("as it is", arrivals, mix.length_s, mix.warm_up, made_up(arrivals))
    return replace(made, **changes)  # type: ignore[arg-type]


class TokenByToken(House):
    """Boxes and a provider that tell each token when it is there, as a real one does."""

    def _box(self, name: str, base: str, adapters: dict[str, str], pool: int) -> Box:  # type: ignore[override]
        coarse = super()._box(name, base, adapters, pool)
        engine = self.engines[name] = ModelledEngine(
            replace(self._scenario.knobs, max_cpu_loras=pool).model(max_loras=self._option.slots, longest=9000),
            base=base,
            adapters=dict(adapters),
            pace=coarse.engine.pace,
            max_queued=None,
            max_model_len=8192,
            clock=self._loop.time,
            wall=wall_s,
        )
        return Box(engine, api_key=None, max_model_len=8192, any_adapter=False)

    def _provider(self) -> HostedOpenAI:  # type: ignore[override]
        pace = Pace(self._scenario.provider.ttft_s, self._scenario.provider.itl_s, self._scenario.longest_answer + 1)
        engine = Engine(base="hosted", adapters={}, pace=pace, max_loras=0, max_queued=None, clock=self._loop.time)
        return HostedOpenAI(engine, api_key=None)


@pytest.mark.parametrize("boxes", [1, 2])
def test_tokens_told_in_pieces_change_no_first_token_and_no_end(boxes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = run(scenario(), Option(boxes, 4))
    monkeypatch.setattr("backend.planner.run.House", TokenByToken)
    tokens = run(scenario(), Option(boxes, 4))
    assert [one.served_by for one in pieces.asked] == [one.served_by for one in tokens.asked]
    assert [one.degraded for one in pieces.asked] == [one.degraded for one in tokens.asked]
    assert [one.ttft_s for one in pieces.asked] == pytest.approx([one.ttft_s for one in tokens.asked], abs=1e-4)
    assert [one.e2e_s for one in pieces.asked] == pytest.approx([one.e2e_s for one in tokens.asked], abs=1e-4)
    assert pieces.swaps == tokens.swaps > 0


def test_everybody_gets_a_whole_answer_while_there_is_room() -> None:
    found = figures_of(run(scenario(), Option(2, 16)), Prices())
    assert found.requests == sum(one.at_s >= BUSY.warm_up for one in schedule(BUSY))
    assert (found.degraded_share, found.failed, found.refused) == (0.0, 0.0, 0.0)
    assert 0 < found.ttft_s[0.5] <= found.ttft_s[0.95] <= found.ttft_s[0.99] < 2.0


def test_a_box_that_dies_leaves_its_customers_to_the_other_one() -> None:
    done = run(scenario(dies_at_s=8.0), Option(2, 16))
    assert done.died in ("box-1", "box-2")
    after = [one for one in done.asked if one.at_s > 10.0]
    assert {one.served_by for one in after if one.degraded is None} == {"box:box-1", "box:box-2"} - {f"box:{done.died}"}
    # What had begun to answer there goes on elsewhere, or ends with an error; all else is answered.
    assert {one.status for one in done.asked} == {200}
    assert {one.at_s < 8.0 for one in done.asked if one.broken} <= {True}


def test_with_the_only_box_dead_the_provider_answers_and_is_paid() -> None:
    done = run(scenario(dies_at_s=8.0), Option(1, 16))
    assert {one.served_by for one in done.asked if one.at_s > 10.0} == {"provider:hosted"}
    shares = dict(degraded_over_time(done, 1.0))
    assert (shares[1.0], shares[14.0]) == (0.0, 1.0)
    found = figures_of(done, Prices(gpu_usd_per_hour=2.0))
    assert found.bill.boxes == 2.0 * HOURS_A_MONTH
    assert found.bill.hosted > 0
    assert not found.bill.unpriced


def test_a_slower_engine_is_slower_in_the_plan() -> None:
    knobs = ModelKnobs(decode_ms=13.0)
    usual, slow = (figures_of(run(scenario(knobs=k), Option(3, 24)), Prices()) for k in (ModelKnobs(), knobs))
    assert slow.e2e_s[0.5] > 3 * usual.e2e_s[0.5]


def test_a_provider_is_as_fast_as_it_is_said_to_be() -> None:
    done = run(scenario(dies_at_s=0.0, provider=ProviderPace(ttft_s=0.3, itl_s=0.002)), Option(1, 8))
    (one, *_) = [one for one in done.asked if one.streamed and one.at_s > 10.0 and one.tokens > 100]
    assert one.ttft_s == pytest.approx(0.3, abs=0.01)
    assert one.e2e_s == pytest.approx(0.3 + 0.002 * (one.tokens - 1), abs=0.05)


def policies(**rules: object) -> PolicySet:
    fleet = Fleet(base_model="base", boxes={"gpu-a": BoxOf(url="http://gpu-a:8000", max_loras=4)})
    digest = "sha256:" + "a" * 64
    acme = CustomerFile.model_validate(
        {"customer": "acme", "api_keys": [digest], "adapters": ["acme_v3"], "aliases": {"acme": "acme_v3"}, **rules}
    )
    static = Rules(fallback=[StaticStep(static="Later, please.")])
    return PolicySet(fleet=FleetFile(fleets={"main": fleet}), defaults=static, customers=(acme,))


def asking(customer: str = "acme", model: str = "acme", count: int = 60) -> list[Arrival]:
    return [Arrival(0.5 * n, customer, model, 50, 50, True) for n in range(count)]


def test_the_policies_decide_limits_fallbacks_and_aliases_too() -> None:
    limited = compiled(policies(limits=Limits(requests_per_minute=20)))
    done = run(Scenario("limits", asking(), 30.0, 0.0, limited), Option(1, 4))
    found = figures_of(done, Prices())
    assert found.refused == pytest.approx(40 / 60)
    assert found.failed == 0
    assert {one.served_by for one in done.asked if one.status == 200} == {"box:gpu-a"}
    dead = run(Scenario("dead", asking(), 30.0, 0.0, compiled(policies()), dies_at_s=0.0), Option(1, 4))
    assert {one.served_by for one in dead.asked[10:]} == {"static"}


def test_who_is_in_no_policy_is_named() -> None:
    for arrivals, words in ((asking("globex"), "globex"), (asking(model="acme_v9"), "acme_v9")):
        with pytest.raises(PlanError, match=words):
            run(Scenario("as it is", arrivals, 30.0, 0.0, compiled(policies())), Option(1, 4))


def test_twins_have_adapters_and_limits_of_their_own() -> None:
    traffic = Traffic(None, asking(), 30.0, 0.0, compiled(policies(limits=Limits(requests_per_minute=20))))
    many = traffic.scenario(WhatIf("customers=3x", times=3), Scenario("", (), 0.0, 0.0, made_up(())))
    assert len(many.arrivals) == 180
    done = run(many, Option(1, 4))
    served = [one.customer for one in done.asked if one.status == 200]
    assert {name: served.count(name) for name in set(served)} == {"acme": 20, "acme.x1": 20, "acme.x2": 20}


def test_ten_times_the_customers_of_a_mix_are_ten_times_the_requests_and_adapters() -> None:
    traffic = Traffic(BUSY, (), BUSY.length_s, BUSY.warm_up, None)
    like = scenario()
    many = traffic.scenario(WhatIf("customers=10x", times=10), like)
    assert len(many.arrivals) == pytest.approx(10 * len(like.arrivals), rel=0.15)
    assert len({one.model for one in many.arrivals}) > 200
    assert many.policy.customers.keys() == {one.customer for one in many.arrivals}


def test_the_search_finds_the_fewest_boxes_that_reach_the_goal() -> None:
    told: list[str] = []
    mix = BUSY.model_copy(update={"requests_per_minute": 1500.0, "duration": 5.0})
    study = Studying([scenario(mix)], read_goal(DEFAULT), Prices(), told.append).search([8], most=8)
    (answer,) = study.answers
    met = {row.option.boxes: not row.missed for row in study.rows}
    assert answer.boxes is not None
    assert met[answer.boxes]
    assert not met[answer.boxes - 1]
    best = study.cheapest("as it is")
    assert best is not None
    assert best.option == Option(answer.boxes, 8)
    assert len(told) == len(study.rows)


def test_processes_side_by_side_find_the_same() -> None:
    options = [Option(1, 8), Option(2, 8)]
    one, two = (
        Studying([scenario()], read_goal(DEFAULT), Prices(), jobs=jobs).compare(options).rows for jobs in (1, 2)
    )
    assert one == two


def test_a_connection_that_is_cut_in_memory_ends_on_both_sides() -> None:
    ended: list[tuple[str, type[BaseException] | None]] = []

    class Side(asyncio.Protocol):
        def __init__(self, name: str) -> None:
            self.name = name

        def connection_lost(self, exc: Exception | None) -> None:
            ended.append((self.name, type(exc) if exc is not None else None))

    async def cut() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            await loop.create_server(lambda: Side("server"), sock=sock)
            port = sock.getsockname()[1]
            transport, _ = await loop.create_connection(lambda: Side("client"), "127.0.0.1", port)
            transport.abort()
            await asyncio.sleep(1.0)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(cut())
    assert sorted(ended, key=lambda one: one[0]) == [("client", None), ("server", ConnectionResetError)]


def test_a_run_is_given_up_only_where_the_goal_is_missed_whatever_comes() -> None:
    busy = scenario(BUSY.model_copy(update={"requests_per_minute": 1500.0, "duration": 6.0}))
    whole = run(busy, Option(1, 4))
    for text, given_up in (("p95 ttft < 300ms", True), ("degraded < 1%", True), ("p95 ttft < 9s", False)):
        goal = read_goal(text)
        part = run(busy, Option(1, 4), Hopeless(goal, busy))
        assert (part.stopped_at_s is not None) == bool(goal.missed(figures_of(whole, Prices()))) == given_up
        if given_up:
            assert goal.missed(figures_of(part, Prices()))
            assert len(part.asked) < len(whole.asked)
            assert all(one.ended for one in part.asked)
        else:
            assert part.asked == whole.asked


def test_a_search_in_a_large_traffic_finds_what_one_of_whole_runs_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = BUSY.model_copy(update={"requests_per_minute": 1500.0, "duration": 5.0})
    goal = read_goal("p95 ttft < 200ms and degraded < 1%")
    whole = Studying([scenario(mix)], goal, Prices()).search([8], most=8)
    monkeypatch.setattr("backend.planner.study.LARGE", 1)
    spared = Studying([scenario(mix)], goal, Prices()).search([8], most=8)
    assert spared.answers == whole.answers
