"""`failsoft serve --workers 2`: two processes that answer, and one table of what they know."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import openai

from tests.cli.served import ADAPTER, KEY, LATER, Served
from tests.support.checker import check_stream
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient
from tests.workers.conftest import Boxes, Several

CROWD = 24


def questions(box: Simulator) -> int:
    """What customers asked of a box, its probes left out."""
    return len(box.admin.requests(model=ADAPTER))


def alive(pid: int) -> bool:
    """Whether it runs; one that only waits for somebody to ask how it ended does not."""
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def test_both_workers_answer_and_what_they_have_in_flight_is_counted_together(
    gateway: Several, boxes: Boxes
) -> None:
    for box in boxes.values():
        box.admin.fault("stall", seconds=None, adapter=ADAPTER)
    crowd = [asyncio.ensure_future(gateway.client.chat(ADAPTER)) for _ in range(CROWD)]  # noqa: TID251

    async def all_run() -> bool:
        status = await gateway.status()
        running = [worker["in_flight"] for worker in status["workers"]]
        return sum(running) == sum(box["in_flight"] for box in status["boxes"]) == CROWD and all(running)

    await gateway.until(all_run)
    status = await gateway.status()
    assert sum(box["in_flight_by_adapter"].get(ADAPTER, 0) for box in status["boxes"]) == CROWD
    assert len({worker["pid"] for worker in status["workers"]} | {gateway.process.pid}) == 3
    assert await gateway.metric("failsoft_in_flight") == CROWD
    assert await gateway.metric("failsoft_box_in_flight") == CROWD

    for request in crowd:
        request.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)

    async def none_runs() -> bool:
        status = await gateway.status()
        return not any(counted["in_flight"] for counted in (*status["workers"], *status["boxes"]))

    await gateway.until(none_runs)


async def test_failures_of_an_adapter_are_counted_over_all_workers(gateway: Several, boxes: Boxes) -> None:
    for box in boxes.values():
        box.admin.fault("status", status=500, message="broken", adapter=ADAPTER)
    home = (await gateway.status())["boxes"]
    assert [box["failing_adapters"] for box in home] == [[], []]
    # Each request fails at one box and then at the other: two of a threshold of three.
    for _ in range(2):
        assert LATER.encode() in (await gateway.client.chat(ADAPTER)).body
    assert [box["failing_adapters"] for box in (await gateway.status())["boxes"]] == [[], []]
    await gateway.client.chat(ADAPTER)

    async def open_everywhere() -> bool:
        return all(box["failing_adapters"] for box in (await gateway.status())["boxes"])

    await gateway.until(open_everywhere)
    assert {name: questions(box) for name, box in boxes.items()} == {"a": 3, "b": 3}
    assert await gateway.metric("failsoft_breaker_transitions_total", target="a/*", to="open") == 1


async def test_of_a_box_that_dies_there_is_one_breaker_that_opens_once_for_all(gateway: Several, boxes: Boxes) -> None:
    assert {answer.status for answer in await gateway.crowd(CROWD)} == {200}
    boxes["a"].kill()
    answers = await gateway.crowd(CROWD)
    assert {answer.headers["x-failsoft-served-by"] for answer in answers} == {"box:b"}
    assert all(check_stream(answer).whole for answer in answers)

    async def is_open() -> bool:
        return (await gateway.box("a"))["state"] != "closed"

    await gateway.until(is_open)
    assert {answer.headers["x-failsoft-attempts"] for answer in await gateway.crowd(CROWD)} == {"1"}
    changes = [event["state"] for event in await gateway.events("box_state") if event["box"] == "a"]
    assert changes == ["open"]

    boxes["a"].start()
    await boxes["a"].ready()

    async def is_back() -> bool:
        return (await gateway.box("a"))["state"] == "closed"

    await gateway.until(is_back)
    changes = [event["state"] for event in await gateway.events("box_state") if event["box"] == "a"]
    assert changes == ["open", "closed"]


async def test_a_box_is_probed_by_one_process(gateway: Several, boxes: Boxes) -> None:
    async def several_probes() -> bool:
        return await gateway.metric("failsoft_probe_total", box="a") >= 2

    await gateway.until(several_probes)
    seen = len(boxes["a"].admin.requests(model="base"))
    assert seen <= await gateway.metric("failsoft_probe_total", box="a") <= seen + 1


async def test_metrics_and_status_add_up_what_all_workers_have_counted(gateway: Several) -> None:
    await gateway.crowd(CROWD)
    await gateway.crowd(CROWD, stream=False)
    assert await gateway.metric("failsoft_requests_total", customer="acme") == 2 * CROWD
    assert await gateway.metric("failsoft_request_seconds_count") == 2 * CROWD
    assert (await gateway.status())["requests"]["answered"] == 2 * CROWD
    assert await gateway.metric("failsoft_workers") == 2
    swaps = await gateway.metric("failsoft_box_predicted_lora_swaps_total")
    assert swaps <= 2, "each box brings the one adapter in once, whoever asked"


async def test_a_worker_that_is_killed_costs_its_own_answers_and_is_started_again(
    gateway: Several, boxes: Boxes
) -> None:
    victim = (await gateway.status())["workers"][0]["pid"]
    over = asyncio.Event()
    answered = 0

    async def agent() -> None:
        nonlocal answered
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=3) as client:
            while not over.is_set():
                # The SDK asks again where a connection breaks before it has an answer.
                answer = await client.chat.completions.create(
                    model=ADAPTER, messages=[{"role": "user", "content": "hello"}]
                )
                assert answer.choices[0].message.content
                answered += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(agent())
        try:
            await eventually(lambda: answered > 40)
            os.kill(victim, signal.SIGKILL)
            before = answered

            async def back() -> bool:
                workers = (await gateway.status())["workers"]
                return all(worker["ready"] and worker["pid"] != victim for worker in workers)

            await gateway.until(back, within_s=20)
            await eventually(lambda: answered > before + 40)
        finally:
            over.set()

    async def quiet() -> bool:
        status = await gateway.status()
        counts = [counted["in_flight"] for counted in (*status["workers"], *status["boxes"])]
        return not any(counts) and not status["alarms"]

    await gateway.until(quiet)
    assert [event["worker"] for event in await gateway.events("worker_ended")] == [0]
    assert await gateway.metric("failsoft_worker_restarts_total") == 1
    # What it had counted until a second before its end is still in the sum.
    assert await gateway.metric("failsoft_requests_total") > before / 2


async def test_no_connection_is_lost_or_waits_where_an_idle_worker_dies(gateway: Several) -> None:
    for worker in (0, 1):
        victim = (await gateway.status())["workers"][worker]["pid"]
        os.kill(victim, signal.SIGKILL)
        answers = await gateway.crowd(CROWD)
        assert {answer.end for answer in answers} == {"complete"}
        assert all(check_stream(answer).whole for answer in answers)

        async def back(victim: int = victim) -> bool:
            return all(one["ready"] and one["pid"] != victim for one in (await gateway.status())["workers"])

        await gateway.until(back, within_s=20)
    answers = await gateway.crowd(CROWD)
    assert all(check_stream(answer).whole for answer in answers)


async def test_new_connections_go_to_the_others_while_a_worker_is_frozen(gateway: Several) -> None:
    frozen = (await gateway.status())["workers"][0]["pid"]
    os.kill(frozen, signal.SIGSTOP)
    try:
        assert all(check_stream(answer).whole for answer in await gateway.crowd(CROWD))
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert all(check_stream(answer).whole for answer in await gateway.crowd(CROWD))


async def test_a_worker_that_is_told_to_end_drains_and_another_takes_its_place(gateway: Several, boxes: Boxes) -> None:
    for box in boxes.values():
        box.admin.fault("stall", seconds=1.0, adapter=ADAPTER, count=CROWD)
    crowd = [asyncio.ensure_future(gateway.client.chat(ADAPTER)) for _ in range(CROWD)]  # noqa: TID251

    async def all_run() -> bool:
        return sum(worker["in_flight"] for worker in (await gateway.status())["workers"]) == CROWD

    await gateway.until(all_run)
    victim = (await gateway.status())["workers"][0]["pid"]
    os.kill(victim, signal.SIGTERM)
    assert all(check_stream(answer).whole for answer in await asyncio.gather(*crowd))
    assert all(check_stream(answer).whole for answer in await gateway.crowd(CROWD))

    async def back() -> bool:
        return all(one["ready"] and one["pid"] != victim for one in (await gateway.status())["workers"])

    await gateway.until(back, within_s=20)


async def test_a_drain_holds_in_all_workers_and_its_end_too(gateway: Several, boxes: Boxes) -> None:
    code, output = await gateway.failsoft("drain", "a")
    assert code == 0, output
    answers = await gateway.crowd(CROWD)
    assert {answer.headers["x-failsoft-served-by"] for answer in answers} == {"box:b"}
    assert questions(boxes["a"]) == 0
    code, output = await gateway.failsoft("drain", "b")
    assert code == 0, output
    code, output = await gateway.failsoft("undrain", "a")
    assert code == 0, output
    answers = await gateway.crowd(CROWD)
    assert {answer.headers["x-failsoft-served-by"] for answer in answers} == {"box:a"}
    assert [event["box"] for event in await gateway.events("box_drained")] == ["a", "b"]


async def test_a_new_policy_is_in_force_in_all_workers(gateway: Several, served: Served) -> None:
    served.customer("globex", "fs-globex-key")
    other = RawClient(gateway.url, key="fs-globex-key")

    async def known_everywhere() -> bool:
        answers = await asyncio.gather(*(other.ask("/v1/models") for _ in range(CROWD)))
        return {answer.status for answer in answers} == {200}

    await gateway.until(known_everywhere)
    answers = await gateway.crowd(CROWD)
    assert {answer.headers["x-failsoft-policy"] for answer in answers} == {"2"}


async def test_running_answers_of_all_workers_end_in_order_after_sigterm_and_no_process_is_left(
    gateway: Several, boxes: Boxes
) -> None:
    workers = [worker["pid"] for worker in (await gateway.status())["workers"]]
    for box in boxes.values():
        box.admin.fault("stall", seconds=1.0, adapter=ADAPTER)
    crowd = [asyncio.ensure_future(gateway.client.chat(ADAPTER)) for _ in range(CROWD)]  # noqa: TID251

    async def all_run() -> bool:
        return sum(worker["in_flight"] for worker in (await gateway.status())["workers"]) == CROWD

    await gateway.until(all_run)
    gateway.process.terminate()
    await eventually(lambda: "draining" in gateway.process.output)

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(gateway.url.rpartition(":")[2]))) != 0

    await eventually(refused)
    assert all(check_stream(answer).whole for answer in await asyncio.gather(*crowd))
    assert await gateway.process.ended() == 0
    assert not [pid for pid in workers if alive(pid)]
    assert "Traceback" not in gateway.process.output


async def test_a_second_sigterm_ends_what_still_runs(gateway: Several, boxes: Boxes) -> None:
    for box in boxes.values():
        box.admin.fault("stall", seconds=None, adapter=ADAPTER)
    crowd = [asyncio.ensure_future(gateway.client.chat(ADAPTER)) for _ in range(4)]  # noqa: TID251

    async def all_run() -> bool:
        return sum(worker["in_flight"] for worker in (await gateway.status())["workers"]) == 4

    await gateway.until(all_run)
    gateway.process.terminate()
    await eventually(lambda: "draining" in gateway.process.output)
    gateway.process.terminate()
    for answer in await asyncio.gather(*crowd):
        seen = check_stream(answer)
        assert (seen.violations, seen.done) == ([], True)
        assert seen.error is not None
    assert await gateway.process.ended() == 0


async def test_workers_end_when_their_watcher_is_killed(gateway: Several) -> None:
    workers = [worker["pid"] for worker in (await gateway.status())["workers"]]
    gateway.process.kill()
    await eventually(lambda: not [pid for pid in workers if alive(pid)], within_s=10)


async def test_what_is_not_for_clients_is_the_whole_gateways_on_every_connection(gateway: Several) -> None:
    newest = {(await gateway.admin.ask("/admin/events")).json()["newest"] for _ in range(8)}
    assert len(newest) == 1
    polls = [
        asyncio.ensure_future(gateway.admin.ask(f"/admin/events?after={max(newest)}&wait_s=20"))  # noqa: TID251
        for _ in range(8)
    ]
    await gateway.admin.ask("/admin/boxes/a/drain", method="POST", body={})
    for poll in await asyncio.gather(*polls):
        assert [event["kind"] for event in poll.json()["events"]] == ["box_drained"]
    ready = await gateway.client.ask("/readyz")
    assert (ready.status, ready.json()["ready"]) == (200, True)
    page = await gateway.client.ask("/ops")
    assert (page.status, "content-security-policy" in page.headers) == (200, True)
    assert (await gateway.client.ask("/admin/status")).status == 401
    assert (await gateway.client.ask("/nowhere")).status == 404
    too_much = await gateway.admin.ask("/admin/boxes/a/drain", method="POST", body=b"x" * (2 << 20))
    assert too_much.status == 413


async def test_a_client_that_leaves_a_long_poll_leaves_nothing_behind(gateway: Several) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await gateway.admin.ask("/admin/events?after=99999999&wait_s=20", timeout_s=20)
    gateway.process.terminate()
    assert await gateway.process.ended(within_s=10) == 0


async def test_a_port_of_another_gateway_of_several_workers_is_taken(
    gateway: Several, processes: Processes, tmp_path: Path
) -> None:
    port = gateway.url.rpartition(":")[2]
    command = [sys.executable, "-m", "gateway.cli", "serve", "--workers", "2", "--port", port]
    options = ["--policies", str(tmp_path / "policies"), "--state", str(tmp_path / "other-state")]
    other = processes.command([*command, *options], name="other gateway")
    assert await other.ended(within_s=20.0) == 1
    assert f"failsoft: cannot listen on 127.0.0.1:{port}: Address already in use" in other.output


async def test_with_an_admin_port_the_watcher_answers_there(served: Served) -> None:
    process, url = await served.up("--workers", "2", "--admin-port", "0", env={"FAILSOFT_ADMIN_TOKEN": "token"})
    admin_url = process.output.partition("the admin API listens on ")[2].split()[0]
    client, admin = RawClient(url, key=KEY), RawClient(admin_url, key="token")
    await asyncio.gather(*(client.chat(ADAPTER) for _ in range(8)))
    assert (await client.ask("/admin/status")).status == 404
    assert (await client.ask("/healthz")).status == 200
    status = (await admin.ask("/admin/status")).json()
    assert status["requests"]["answered"] == 8
    assert [worker["ready"] for worker in status["workers"]] == [True, True]
