"""A box with a modelled engine is as whole as any other, and slow where vLLM is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from backend.simulator.admin import Admin
from tests.support.checker import check_plain, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording


@pytest.fixture(scope="module")
def fast_box(session_processes: Processes) -> Simulator:
    """Two slots for three adapters; a step takes a millisecond."""
    box = session_processes.box(
        name="fast",
        adapters=["acme", "globex", "initech"],
        max_loras=2,
        max_cpu_loras=8,
        decode_ms=1,
        decode_ms_per_seq=0,
        swap_ms=2,
        disk_load_ms=5,
        tokens=64,
        server_dev_mode=True,
    )
    box.wait_ready()
    return box


@pytest.fixture
def box(fast_box: Simulator) -> Iterator[Simulator]:
    fast_box.admin.forget()
    yield fast_box
    fast_box.admin.heal()


@pytest.fixture
def client(box: Simulator) -> RawClient:
    return RawClient(box.url)


def engine(admin: Admin) -> dict[str, Any]:
    """What the model says of itself."""
    return dict(admin.state()["engine"])


async def gauge(client: RawClient, name: str) -> float:
    """One gauge of /metrics, the labels that are always there left out."""
    text = (await client.ask("/metrics")).body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f"vllm:{name}")]
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("limit", [1, 5, None])
@pytest.mark.parametrize("choices", [1, 3])
async def test_every_length_is_whole(client: RawClient, path: str, limit: int | None, choices: int) -> None:
    prompt: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "hi"}
    body = {"model": "acme", "n": choices, "max_tokens": limit, **prompt}
    streamed = check_stream(await client.ask(path, {**body, "stream": True}), choices=choices)
    plain = check_plain(await client.ask(path, body), choices=choices)
    assert streamed.whole, streamed.violations
    assert plain.whole, plain.violations
    assert streamed.text == plain.text


async def test_many_at_once_are_all_whole_and_swap_adapters(client: RawClient, box: Simulator) -> None:
    before = engine(box.admin)
    names = ["acme", "globex", "initech"] * 8
    answers = await asyncio.gather(*(client.chat(name) for name in names))
    for name, answer in zip(names, answers, strict=True):
        seen = check_stream(answer)
        assert seen.whole, seen.violations
        assert seen.answered_by == name
    after = engine(box.admin)
    assert after["swaps"] > before["swaps"]
    assert after["disk_loads"] == before["disk_loads"], "the pool holds all that were there from the start"
    assert (after["running"], after["waiting_capacity"], after["waiting_deferred"]) == (0, 0, 0)


async def test_steps_take_their_time(processes: Processes) -> None:
    box = processes.box(decode_ms=20, prefill_tokens_per_s=100)
    await box.ready()
    answer = await RawClient(box.url).chat("base", text="five words are in here", max_tokens=6)
    assert check_stream(answer).whole
    first = answer.arrival_s(b'"base:"')
    assert first is not None
    # Nine prompt tokens at 100 a second, then five more steps.
    assert 0.1 < first < 1.0
    assert answer.ended_s - first > 0.09


async def test_a_third_adapter_waits_for_a_slot_while_a_hot_one_goes_on(processes: Processes) -> None:
    box = processes.box(adapters=["hot", "cold"], max_loras=1, max_cpu_loras=4, decode_ms=2, tokens=100_000)
    await box.ready()
    client = RawClient(box.url)
    async with AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(
            model="hot", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        await anext(aiter(stream))
        asked = asyncio.get_running_loop().create_task(client.chat("cold", max_tokens=3))
        await eventually(lambda: engine(box.admin)["waiting_deferred"] == 1)
        assert check_stream(await client.chat("hot", max_tokens=3)).whole
        assert not asked.done()
        assert await gauge(client, "num_requests_running") == 1
        assert (
            await gauge(client, 'num_requests_waiting_by_reason{engine="0",model_name="base",reason="deferred"}') == 1
        )
        await stream.close()
        answer: Recording = await asked
    assert check_stream(answer).answered_by == "cold"


async def test_while_the_engine_hangs_health_is_fine_and_metrics_are_stale(box: Simulator, client: RawClient) -> None:
    box.admin.fault("freeze", healthy=True)
    before = (await client.ask("/metrics")).body
    asked = asyncio.get_running_loop().create_task(client.chat("acme"))
    await eventually(lambda: box.admin.state()["running"])
    assert (await client.ask("/health")).status == 200
    assert (await client.ask("/metrics")).body == before
    assert not asked.done()
    box.admin.heal()
    assert check_stream(await asked).whole


@pytest.mark.parametrize("stream", [True, False])
async def test_a_box_that_is_put_to_sleep_aborts_what_runs_and_queues_what_comes(
    processes: Processes, stream: bool
) -> None:
    box = processes.box(server_dev_mode=True, decode_ms=2, tokens=100_000)
    await box.ready()
    client = RawClient(box.url)
    asked = asyncio.get_running_loop().create_task(client.chat("base", stream=stream))
    await eventually(lambda: engine(box.admin)["running"])
    slept = await client.ask("/sleep?level=1", b"")
    assert (slept.status, slept.json()) == (200, {"status": "sleeping", "level": 1})
    assert (await client.ask("/is_sleeping")).json() == {"is_sleeping": True}
    assert (await client.ask("/health")).status == 200
    assert b'"finish_reason":"abort"' in (await asked).body
    later = asyncio.get_running_loop().create_task(client.chat("base", max_tokens=3))
    await eventually(lambda: engine(box.admin)["waiting_capacity"] == 1)
    assert (await client.ask("/wake_up", b"")).json() == {"status": "awake", "tags": None}
    assert check_stream(await later).whole
    assert (await client.ask("/is_sleeping")).json() == {"is_sleeping": False}


@pytest.mark.parametrize("query", ["level=3", "mode=never"])
async def test_sleep_takes_levels_and_modes_that_there_are(client: RawClient, query: str) -> None:
    assert (await client.ask(f"/sleep?{query}", b"")).status == 400


async def test_a_client_that_leaves_frees_its_place(box: Simulator, client: RawClient) -> None:
    left = await client.chat("acme", leave_after=b" 3")
    assert left.end == "left"
    await eventually(lambda: engine(box.admin)["running"] == 0)
    assert check_stream(await client.chat("acme")).whole


async def test_faults_act_on_a_modelled_box_as_on_any_other(box: Simulator, client: RawClient) -> None:
    box.admin.fault("reset_mid_stream", after_chunks=3, count=1)
    assert (await client.chat("acme")).end == "reset"
    box.admin.fault("stall", seconds=0.1, count=1)
    assert check_stream(await client.chat("acme")).whole
    box.admin.fault("hang_before_headers", count=1)
    assert (await client.chat("acme", timeout_s=0.2)).end == "timeout"
    await eventually(lambda: engine(box.admin)["running"] == 0)


async def test_adapters_come_and_go_and_take_their_time(box: Simulator, client: RawClient) -> None:
    new = {"lora_name": "hooli", "lora_path": "/adapters/hooli"}
    loaded = await client.ask("/v1/load_lora_adapter", new)
    assert loaded.body == b"Success: LoRA adapter 'hooli' added successfully."
    assert loaded.ended_s > 0.006
    assert check_stream(await client.chat("hooli")).answered_by == "hooli"
    await client.ask("/v1/unload_lora_adapter", {"lora_name": "hooli"})
    assert (await client.chat("hooli")).status == 404
    assert "hooli" in engine(box.admin)["pooled"], "its weights stay"


async def test_a_modelled_box_objects_to_an_empty_conversation(client: RawClient) -> None:
    answer = await client.ask("/v1/chat/completions", {"model": "acme", "messages": []})
    assert answer.status == 400
    assert "empty conversation" in answer.json()["error"]["message"]


async def test_a_full_modelled_box_says_503(processes: Processes) -> None:
    box = processes.box(faithful=True, decode_ms=5, tokens=100_000, max_num_queued_reqs=2)
    await box.ready()
    client = RawClient(box.url)
    async with AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(
            model="base", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        await anext(aiter(stream))
        assert (await client.chat("base", n=2)).status == 503
        assert check_stream(await client.chat("base", max_tokens=2)).whole
        await stream.close()


async def test_a_modelled_box_that_is_told_to_stop_ends_its_answers_with_abort(processes: Processes) -> None:
    box = processes.box(decode_ms=5, tokens=100_000)
    await box.ready()
    async with AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(
            model="base", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        chunks = aiter(stream)
        await anext(chunks)
        box.terminate()
        rest = [chunk async for chunk in chunks]
        assert str(rest[-1].choices[0].finish_reason) == "abort"
    assert await box.ended() == 0


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"faithful": True, "itl_ms": 5}, "exclude each other"),
        ({"max_loras": 8, "max_cpu_loras": 4}, "max_cpu_loras"),
        ({"kv_cache_tokens": 1000}, "too few for a request of"),
    ],
)
async def test_knobs_that_do_not_go_together_are_misuse(processes: Processes, knobs: dict[str, Any], says: str) -> None:
    box = processes.box(**knobs)
    assert await box.ended() == 2
    assert says in box.output
