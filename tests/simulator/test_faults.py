"""Every fault does what it says, to streams and to plain answers, and only to whom it is meant for."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from tests.support.checker import check_plain, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording

QUICK: dict[str, dict[str, Any]] = {
    "drip": {"every_s": 0.001, "after_chunks": 17},
    "hang_before_headers": {"seconds": 0.1},
    "slow_headers": {"every_s": 0.001},
    "stall": {"seconds": 0.2},
    "huge_frame": {"bytes": 300_000},
    "keepalive_comments_then_silence": {"comments": 3, "every_s": 0.01},
    "huge_headers": {"bytes": 30_000},
}
"""Parameters that keep the tests short."""

STREAM: dict[str, list[str]] = {
    "reset_before_headers": ["status"],
    "close_before_headers": ["status"],
    "hang_before_headers": [],
    "slow_headers": [],
    "huge_headers": [],
    "reset_after_headers": ["cut", "bare_end", "no_finish"],
    "reset_mid_stream": ["cut", "bare_end", "no_finish"],
    "truncate": ["bare_end", "no_finish"],
    "malformed_frame": ["frame"],
    "invalid_utf8": ["frame", "bare_end", "no_finish"],
    "error_frame_first": [],
    "error_frame_mid": [],
    "role_only_then_silence": ["cut", "bare_end", "no_finish"],
    "keepalive_comments_then_silence": ["cut", "bare_end", "no_finish"],
    "stall": [],
    "drip": [],
    "huge_frame": ["text"],
    "html_200": ["content_type", "frame", "bare_end", "no_finish"],
    "empty_200": ["bare_end", "no_finish"],
    "garbage": ["status"],
    "status": ["status"],
    "adapter_missing": ["status"],
    "abort": ["finish"],
    "done_without_finish": ["no_finish"],
    "wrong_content_length": ["cut"],
    "other_words": [],
}
"""What the checker has to say of a stream with each fault."""

PLAIN: dict[str, list[str]] = {
    **{name: ["status"] for name, codes in STREAM.items() if codes == ["status"]},
    "hang_before_headers": [],
    "slow_headers": [],
    "huge_headers": [],
    "reset_after_headers": ["cut", "frame"],
    "reset_mid_stream": ["cut", "frame"],
    "truncate": ["frame"],
    "malformed_frame": ["frame"],
    "invalid_utf8": ["frame"],
    "error_frame_first": ["frame"],
    "error_frame_mid": ["frame"],
    "role_only_then_silence": ["cut", "frame"],
    "keepalive_comments_then_silence": ["cut", "frame"],
    "stall": [],
    "drip": [],
    "huge_frame": [],
    "html_200": ["frame"],
    "empty_200": ["frame"],
    "abort": ["finish"],
    "done_without_finish": ["frame"],
    "wrong_content_length": ["cut"],
    "other_words": [],
}


async def ask(box: Simulator, model: str = "acme", *, stream: bool = True, **options: Any) -> Recording:
    return await RawClient(box.url).chat(model, stream=stream, timeout_s=options.pop("timeout_s", 5.0), **options)


def patience(name: str) -> float:
    """Those that end in silence are waited for no longer than this."""
    return 0.4 if "silence" in name else 20.0


def test_every_fault_is_tried_here(box: Simulator) -> None:
    known = set(box.admin.known_faults())
    assert known - set(STREAM) == known - set(PLAIN) == {"refuse", "freeze", "die"}


@pytest.mark.parametrize("name", STREAM)
async def test_a_stream_suffers(box: Simulator, name: str) -> None:
    box.admin.fault(name, count=1, **QUICK.get(name, {}))
    seen = check_stream(await ask(box, timeout_s=patience(name)))
    assert seen.codes == STREAM[name], seen.violations
    assert (seen.error is not None) == name.startswith("error_frame")
    after = check_stream(await ask(box))
    assert after.whole, after.violations


@pytest.mark.parametrize("name", PLAIN)
async def test_a_plain_answer_suffers(box: Simulator, name: str) -> None:
    box.admin.fault(name, count=1, **QUICK.get(name, {}))
    seen = check_plain(await ask(box, stream=False, timeout_s=patience(name)))
    assert seen.codes == PLAIN[name], seen.violations
    after = check_plain(await ask(box, stream=False))
    assert after.whole, after.violations


@pytest.mark.parametrize("name", ["truncate", "error_frame_mid", "abort", "malformed_frame", "invalid_utf8"])
async def test_completions_suffer_too(box: Simulator, name: str) -> None:
    box.admin.fault(name)
    body = {"model": "acme", "prompt": "hello", "stream": True}
    seen = check_stream(await RawClient(box.url).ask("/v1/completions", body))
    assert seen.violations or seen.error


@pytest.mark.parametrize("chunks", [0, 1, 2, 7, 100])
async def test_a_fault_comes_after_as_many_events_as_it_says(box: Simulator, chunks: int) -> None:
    box.admin.fault("truncate", after_chunks=chunks)
    seen = check_stream(await ask(box))
    assert len(seen.events) + seen.done == min(chunks, 19)
    (request,) = box.admin.requests()
    assert request["events"] == min(chunks, 19)
    assert request["fault"] == "truncate"


async def test_ends_differ_on_the_wire(box: Simulator) -> None:
    ends = {}
    for rule in (
        {"fault": "truncate"},
        {"fault": "truncate", "close": True},
        {"fault": "reset_mid_stream"},
        {"fault": "reset_before_headers"},
        {"fault": "close_before_headers"},
        {"fault": "garbage"},
    ):
        box.admin.faults(rule)
        ends[rule["fault"], rule.get("close", False)] = (await ask(box)).end
    assert ends == {
        ("truncate", False): "complete",
        ("truncate", True): "truncated",
        ("reset_mid_stream", False): "reset",
        ("reset_before_headers", False): "reset",
        ("close_before_headers", False): "truncated",
        ("garbage", False): "garbage",
    }


async def test_a_stall_goes_on_without_gap_or_repeat(box: Simulator) -> None:
    box.admin.fault("stall", seconds=0.5)
    stalled = await ask(box)
    assert check_stream(stalled).whole
    assert stalled.longest_silence_s >= 0.4


async def test_a_status_carries_vllm_s_envelope_and_what_the_rule_adds(box: Simulator) -> None:
    box.admin.fault("status", status=429, retry_after_s=3)
    limited = await ask(box)
    assert (limited.status, limited.headers["retry-after"]) == (429, "3")
    box.admin.fault("status", status=503)
    assert "currently busy" in (await ask(box)).json()["error"]["message"]
    box.admin.fault("status", status=500)
    assert "EngineCore" in (await ask(box)).json()["error"]["message"]
    box.admin.fault("adapter_missing")
    missing = await ask(box)
    assert missing.json()["error"]["message"] == "The model `acme` does not exist. Valid aliases: base."


async def test_a_frame_of_many_megabytes_is_sent_in_pieces(box: Simulator) -> None:
    box.admin.fault("huge_frame", bytes=20_000_000)
    assert len((await ask(box, timeout_s=30)).body) > 20_000_000


async def test_a_client_that_does_not_read_holds_the_server_back(box: Simulator) -> None:
    box.admin.fault("huge_frame", bytes=200_000_000)
    slow = await ask(box, read_bytes_per_s=1000, timeout_s=1.0)
    assert slow.end == "timeout"
    await eventually(lambda: not box.admin.state()["running"])


async def test_only_the_adapter_of_the_rule_suffers(box: Simulator) -> None:
    box.admin.fault("status", adapter="acme")
    assert (await ask(box, "acme")).status == 500
    assert (await ask(box, "globex")).status == 200


async def test_a_rule_can_name_any_path_and_otherwise_means_the_model_s_answers(box: Simulator) -> None:
    client = RawClient(box.url)
    box.admin.fault("status", status=503)
    assert (await client.ask("/health")).status == 200
    box.admin.fault("status", status=503, path="/health")
    assert (await client.ask("/health")).status == 503
    assert (await ask(box)).status == 200


async def test_a_rule_can_look_for_text_in_the_body(box: Simulator) -> None:
    box.admin.fault("status", contains="poison")
    assert (await ask(box, text="poison pill")).status == 500
    assert (await ask(box, text="hello")).status == 200


async def test_a_rule_is_spent_after_its_count_and_then_the_next_one_acts(box: Simulator) -> None:
    box.admin.faults({"fault": "status", "status": 500, "count": 2}, {"fault": "status", "status": 429, "count": 1})
    assert [(await ask(box)).status for _ in range(4)] == [500, 500, 429, 200]
    assert [rule["fired"] for rule in box.admin.rules()] == [2, 1]


async def test_chance_is_seeded(processes: Processes) -> None:
    boxes = [processes.box(seed=7, fault=[{"fault": "status", "probability": 0.5}]) for _ in range(2)]
    for box in boxes:
        await box.ready()
    first, second = [[(await ask(box, "base", stream=False)).status for _ in range(20)] for box in boxes]
    assert first == second
    assert set(first) == {200, 500}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"fault": "explode"}, "unknown fault 'explode'; there are: abort, adapter_missing, "),
        ({"fault": "stall", "secs": 3}, "takes no `secs`; it takes: after_chunks, seconds, adapter"),
        ({"fault": "stall", "seconds": "long"}, "fault stall, `seconds`"),
        ({"fault": "stall", "seconds": -1}, "not below zero"),
        ({"fault": "refuse", "adapter": "acme"}, "refuse takes no `adapter`"),
        ({}, "unknown fault None"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_and_changes_nothing(
    box: Simulator, rule: dict[str, Any], said: str
) -> None:
    box.admin.fault("abort")
    with pytest.raises(httpx2.HTTPStatusError) as caught:
        box.admin.faults({"fault": "stall"}, rule)
    assert said in str(caught.value)
    assert [rule["fault"] for rule in box.admin.rules()] == ["abort"]


async def test_a_box_that_refuses_is_gone_until_it_is_healed(box: Simulator) -> None:
    box.admin.fault("refuse")
    for _ in range(3):
        assert (await ask(box)).end == "refused"
    assert box.admin.state()["listening"] is False
    box.admin.heal()
    assert check_stream(await ask(box)).whole


async def test_refusing_cuts_what_is_running_unless_told_otherwise(box: Simulator) -> None:
    for cut, end in ((True, "reset"), (False, "complete")):
        box.admin.fault("stall", seconds=0.4)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(ask(box))
            await eventually(lambda: box.admin.state()["running"])
            box.admin.faults({"fault": "refuse", "cut": cut})
        assert running.result().end == end
        box.admin.heal()


async def test_refusing_may_end_by_itself(box: Simulator) -> None:
    box.admin.fault("refuse", seconds=0.2)
    assert (await ask(box)).end == "refused"
    await eventually(lambda: box.admin.state()["listening"])
    assert check_stream(await ask(box)).whole


async def test_a_frozen_box_accepts_and_says_nothing_until_it_is_healed(box: Simulator) -> None:
    box.admin.fault("freeze")
    client = RawClient(box.url)
    assert (await client.ask("/health", timeout_s=0.2)).end == "timeout"
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(ask(box))
        await eventually(lambda: box.admin.state()["running"])
        assert box.admin.state()["frozen"] is True
        box.admin.heal()
    assert check_stream(asked.result()).whole


async def test_a_box_whose_engine_hangs_stays_healthy(box: Simulator) -> None:
    box.admin.fault("freeze", healthy=True)
    client = RawClient(box.url)
    assert (await client.ask("/health")).status == 200
    assert (await client.ask("/metrics")).status == 200
    assert (await ask(box, timeout_s=0.2)).end == "timeout"


async def test_a_stream_that_was_frozen_half_way_goes_on(processes: Processes) -> None:
    box = processes.box(itl_ms=30)
    await box.ready()
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(ask(box, "base"))
        await eventually(lambda: any(request["events"] > 2 for request in box.admin.requests()))
        box.admin.fault("freeze", seconds=0.5)
    assert check_stream(asked.result()).whole
    assert asked.result().longest_silence_s > 0.3


@pytest.mark.parametrize("chunks", [0, 5])
async def test_a_request_can_kill_the_process(processes: Processes, chunks: int) -> None:
    box = processes.box(fault=[{"fault": "die", "contains": "poison", "after_chunks": chunks}])
    await box.ready()
    assert check_stream(await ask(box, "base")).whole
    killed = await ask(box, "base", text="poison")
    assert killed.end in ("reset", "truncated")
    assert killed.body.count(b"data: ") == chunks
    assert await box.ended() == -9


@pytest.mark.parametrize(("how", "named"), [("prose", None), ("tool", "look_up_2"), ("longer", "look_up")])
async def test_other_words_are_a_whole_answer(box: Simulator, how: str, named: str | None) -> None:
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    due = check_stream(await ask(box, tools=tools))
    box.admin.fault("other_words", how=how)
    seen = check_stream(await ask(box, tools=tools))
    box.admin.heal()
    assert seen.whole, seen.violations
    assert (seen.choices[0].names.get(0), due.choices[0].names[0]) == (named, "look_up")
    assert (seen.choices[0].calls == due.choices[0].calls) == (how == "tool")
