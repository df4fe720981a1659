"""The model of an engine keeps vLLM's rules: what it runs together, whom it lets wait, what it keeps where."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from backend.simulator.costs import Costs
from backend.simulator.engine_model import EngineModel
from backend.simulator.pause import Pause
from tests.simulator.engine_scripts import DYADIC, Account, Action, Submit, account, actions, limits


@given(limits, actions)
def test_every_token_that_was_asked_for_comes_once_and_in_the_end_all_is_given_back(
    limits: dict[str, Any], script: list[Action]
) -> None:
    seen = account(**limits)
    seen.play(script)
    seen.drain()
    for id, asked in seen.asked.items():
        assert (id in seen.finished) != (id in seen.aborted)
        assert seen.got[id] == asked.output or id in seen.aborted
        assert seen.got[id] <= asked.output
    assert len(seen.finished) == len(set(seen.finished))
    model = seen.model
    assert model.generated_tokens == sum(seen.got.values())
    assert (model.running, model.waiting, model.waiting_deferred, model.kv_usage) == (0, 0, 0, 0.0)


@given(limits, actions)
def test_no_step_breaks_a_limit(limits: dict[str, Any], script: list[Action]) -> None:
    seen = account(**limits)
    model = seen.model

    def check() -> None:
        assert 0.0 <= model.kv_usage <= 1.0
        assert model.running <= limits["max_num_seqs"]
        assert 0 <= model.waiting_deferred <= model.waiting
        assert len(model.loras.resident) <= limits["max_loras"]
        assert len(model.loras.pooled) <= limits["max_cpu_loras"] >= limits["max_loras"]
        assert set(model.loras.resident) <= set(model.loras.pooled)

    for action in script:
        seen.play([action])
        check()
    while (step := seen.step()) is not None:
        check()
        ran = {seen.asked[id].adapter for id in (*step.tokens, *step.finished)} | set(model.running_adapters)
        assert len(ran - {None}) <= limits["max_loras"]
        assert len(step.tokens) <= limits["max_num_seqs"]
        assert step.prefill_tokens <= limits["max_num_batched_tokens"]
        assert set(step.first_tokens) | set(step.finished) <= set(step.tokens)
        assert step.duration_s >= DYADIC.step_s


@given(limits, actions)
def test_requests_of_one_adapter_start_in_the_order_of_their_arrival(
    limits: dict[str, Any], script: list[Action]
) -> None:
    seen = account(**limits)
    seen.play(script)
    seen.drain()
    for adapter in {asked.adapter for asked in seen.asked.values()}:
        numbers = [int(id[1:]) for id in seen.started if seen.asked[id].adapter == adapter]
        assert numbers == sorted(numbers)


@given(limits, actions)
def test_the_same_input_gives_the_same_steps(limits: dict[str, Any], script: list[Action]) -> None:
    twice = [account(**limits), account(**limits)]
    for seen in twice:
        seen.play(script)
        seen.drain()
    assert twice[0].steps == twice[1].steps


def test_a_third_adapter_starves_as_long_as_two_have_requests_without_a_gap() -> None:
    """As it was seen on the real engine: two adapters with three continuous flows each, and one request for a third."""
    seen = account(max_loras=2, max_num_seqs=32)

    def keep_busy() -> None:
        for adapter in ("a", "b"):
            running = sum(seen.asked[id].adapter == adapter for id in seen.asked if id in seen.model)
            for _ in range(3 - running):
                seen.submit(Submit(adapter, 20, 30 + 7 * (len(seen.asked) % 5)))

    keep_busy()
    seen.step()
    seen.submit(Submit("c", 20, 5))
    cold = f"r{len(seen.asked) - 1}"
    while seen.now < 14.8:
        seen.step()
        keep_busy()
    assert seen.got[cold] == 0
    assert (seen.model.waiting_deferred, seen.model.running) == (1, 6)
    assert len(seen.asked) > 100, "the others went on all the while"
    seen.drain()
    assert seen.got[cold] == 5


def test_later_requests_of_a_hot_adapter_overtake_one_that_waits_for_a_slot() -> None:
    seen = account(max_loras=1)
    for adapter in ("a", "b", "a"):
        seen.submit(Submit(adapter, 10, 20))
    seen.step()
    assert seen.started == ["r0", "r2"]
    assert (seen.model.waiting_deferred, seen.model.waiting_capacity) == (1, 0)
    assert seen.model.waiting_adapters == ("b",)
    seen.drain()
    assert seen.finished == ["r0", "r2", "r1"]


def test_one_that_is_aborted_while_it_waits_for_a_slot_is_no_longer_deferred() -> None:
    seen = account(max_loras=1)
    for adapter in ("a", "b"):
        seen.submit(Submit(adapter, 10, 20))
    seen.step()
    assert seen.model.waiting_deferred == 1
    seen.abort(1)
    assert (seen.model.waiting_deferred, seen.model.waiting_capacity) == (0, 0)


def test_requests_for_the_base_need_no_slot() -> None:
    seen = account(max_loras=1)
    for adapter in ("a", "b", None):
        seen.submit(Submit(adapter, 10, 20))
    seen.step()
    assert seen.started == ["r0", "r2"]


def test_a_request_without_a_sequence_to_run_in_waits_for_capacity() -> None:
    seen = account(max_num_seqs=1)
    seen.submit(Submit("a", 10, 20))
    seen.submit(Submit("a", 10, 20))
    seen.step()
    assert (seen.model.running, seen.model.waiting_capacity, seen.model.waiting_deferred) == (1, 1, 0)


def test_a_step_lasts_as_long_as_what_it_does() -> None:
    seen = account(max_loras=2, max_cpu_loras=3)
    seen.submit(Submit("a", 64, 3))
    seen.submit(Submit(None, 32, 3))
    first, second = seen.step(), seen.step()
    assert first is not None
    assert second is not None
    load = DYADIC.disk_load_s + DYADIC.swap_s
    assert first.duration_s == load + DYADIC.step_s + DYADIC.per_adapter_s + 96 / DYADIC.prefill_tokens_per_s
    assert second.duration_s == DYADIC.step_s + DYADIC.per_adapter_s + 2 * DYADIC.per_sequence_s
    assert (first.swapped_in, first.read_from_disk) == (["a"], ["a"])
    assert (second.swapped_in, second.read_from_disk) == ([], [])


def test_an_adapter_that_lost_its_slot_is_swapped_in_from_the_pool_and_one_that_lost_that_is_read_again() -> None:
    seen = account(max_loras=1, max_cpu_loras=2)
    loads = []
    for adapter in ("a", "b", "a", "c", "b"):
        seen.submit(Submit(adapter, 4, 1))
        step = seen.step()
        assert step is not None
        loads.append((bool(step.swapped_in), bool(step.read_from_disk)))
    assert loads == [(True, True), (True, True), (True, False), (True, True), (True, True)]
    loras = seen.model.loras
    assert (loras.swaps, loras.disk_loads, loras.evictions) == (5, 4, 4)
    assert (loras.resident, loras.pooled) == (("b",), ("c", "b"))


def test_a_preloaded_adapter_costs_its_load_before_anybody_asks() -> None:
    seen = account(max_loras=2)
    assert seen.model.preload("a") == DYADIC.disk_load_s + DYADIC.swap_s
    assert seen.model.preload("a") == 0.0
    seen.submit(Submit("a", 4, 1))
    step = seen.step()
    assert step is not None
    assert step.swapped_in == []


def test_a_long_prompt_is_prefilled_in_chunks_while_others_decode() -> None:
    seen = account(max_num_batched_tokens=32)
    seen.submit(Submit("a", 8, 50))
    seen.step()
    seen.submit(Submit("a", 100, 2))
    chunks = [step.prefill_tokens for step in (seen.step() for _ in range(4)) if step is not None]
    assert chunks == [31, 31, 31, 7]
    assert seen.got == {"r0": 5, "r1": 1}


def test_a_full_kv_cache_preempts_the_latest_and_computes_it_anew() -> None:
    # Eight blocks of 16 tokens: both prompts fit, both answers do not.
    seen = account(kv_tokens=128, max_num_batched_tokens=512)
    seen.submit(Submit("a", 60, 40))
    seen.submit(Submit("a", 60, 40))
    seen.step()
    assert seen.model.running == 2
    seen.drain()
    preempted = [id for step in seen.steps for id in step.preempted]
    assert preempted
    assert set(preempted) == {"r1"}
    assert seen.model.preemptions == len(preempted)
    again = next(step for step in seen.steps[1:] if step.prefill_tokens)
    assert again.prefill_tokens > 60, "prompt and answer so far"
    assert "r1" not in again.first_tokens
    assert seen.finished == ["r0", "r1"]


def test_a_prompt_that_does_not_fit_yet_holds_up_all_behind_it() -> None:
    seen = account(kv_tokens=128, max_num_batched_tokens=512)
    for prompt in (70, 70, 1):
        seen.submit(Submit("a", prompt, 2))
    seen.step()
    assert seen.started == ["r0"]
    assert seen.model.waiting_capacity == 2


def test_the_queue_limit_counts_what_waits_and_what_runs() -> None:
    model = EngineModel(max_num_seqs=1, max_queued_reqs=2)
    assert model.submit("one", "a", 10, 10)
    model.step(0.0)
    assert model.submit("two", "a", 10, 10)
    assert not model.submit("three", "a", 10, 10)
    assert model.rejections == 1
    assert model.abort("two")
    assert not model.abort("two")
    assert model.submit("three", "a", 10, 10)


@pytest.mark.parametrize(
    ("pause", "after"), [(Pause.NO, (2, 0)), (Pause.NEW, (1, 1)), (Pause.ALL, (1, 1))], ids=lambda value: str(value)
)
def test_a_paused_engine_takes_requests_and_does_not_run_them(pause: Pause, after: tuple[int, int]) -> None:
    seen = account()
    seen.submit(Submit("a", 10, 10))
    seen.step()
    seen.model.pause = pause
    seen.submit(Submit("a", 10, 10))
    step = seen.step()
    assert (seen.model.running, seen.model.waiting) == after
    assert (step is None) == (pause is Pause.ALL)
    seen.drain()
    seen.model.pause = Pause.NO
    seen.drain()
    assert seen.finished == ["r0", "r1"]


@pytest.mark.parametrize(
    ("prompt", "output", "message"),
    [(0, 1, "has a prompt"), (1, 0, "has a prompt"), (100, 30, "never fit"), (10, 10, "already")],
)
def test_what_cannot_be_served_is_refused(prompt: int, output: int, message: str) -> None:
    model = EngineModel(kv_tokens=128)
    if message == "already":
        model.submit("it", "a", 10, 10)
    with pytest.raises(ValueError, match=message):
        model.submit("it", "a", prompt, output)


@pytest.mark.parametrize("limit", [{"max_loras": 4, "max_cpu_loras": 2}, {"max_num_seqs": 0}, {"kv_tokens": 3}])
def test_limits_that_do_not_fit_together_are_refused(limit: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        EngineModel(**limit)
    with pytest.raises(ValueError):
        Costs(step_s=0.0)


def test_the_default_costs_give_the_figures_of_the_field_report() -> None:
    alone = Account(EngineModel())
    alone.model.preload("a")
    alone.submit(Submit("a", 200, 256))
    alone.drain()
    assert 0.40 < alone.now < 0.43, "p50 of 256 tokens with nobody else: 410 ms"

    full = Account(EngineModel())
    for number in range(512):
        full.submit(Submit(f"a{number % 8}", 200, 256))
    for adapter in full.model.waiting_adapters:
        full.model.preload(adapter)
    full.drain()
    assert 2800 < full.model.generated_tokens / full.now < 3200, "about 3,100 tokens a second a box"
