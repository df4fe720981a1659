"""`failsoft serve` as a process: its start, its policies, its ports, its end."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from gateway.app import Gateway
from gateway.dataplane.listener import QuietServer
from gateway.settings import Settings
from gateway.workers.port import ListenError
from tests.cli.served import ADAPTER, KEY, Served, digest
from tests.support.checker import check_error, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Processes(tmp_path_factory.mktemp("box")) as processes:
        box = processes.box(name="a", adapters=[ADAPTER], tokens=12)
        box.wait_ready()
        yield box


@pytest.fixture
def healthy(box: Simulator) -> Iterator[Simulator]:
    box.admin.heal()
    yield box
    box.admin.heal()


@pytest.fixture
def served(processes: Processes, tmp_path: Path, healthy: Simulator) -> Served:
    return Served(processes, tmp_path, healthy.url)


async def test_a_folder_that_is_edited_takes_effect_for_new_requests_and_leaves_running_streams(
    served: Served, healthy: Simulator
) -> None:
    served.customer("globex", "fs-globex-key", priority="high", limits={"requests_per_minute": 600}, fallback=[])
    process, url = await served.up()
    assert "policy: fallback: nothing answers for globex when the boxes cannot" in process.output
    client, other = RawClient(url, key=KEY), RawClient(url, key="fs-globex-key")
    assert (await other.ask("/v1/models")).status == 200
    healthy.admin.fault("stall", seconds=2.5, adapter=ADAPTER)
    running = asyncio.ensure_future(client.chat(ADAPTER))  # noqa: TID251
    await eventually(lambda: healthy.admin.rules()[0]["fired"])

    served.customer("globex", "fs-another-key")

    async def policy() -> str:
        return (await client.ask("/v1/models")).headers["x-failsoft-policy"]

    async with asyncio.timeout(10):
        while await policy() == "1":  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.05)
    assert (await other.ask("/v1/models")).status == 401
    assert (await RawClient(url, key="fs-another-key").ask("/v1/models")).status == 200
    assert not running.done()
    answer = await running
    assert check_stream(answer).whole
    assert answer.headers["x-failsoft-policy"] == "1"

    # A folder that does not compile changes nothing.
    (served.policies / "customers" / "acme.yaml").write_text("customer: acme\nadaptors: []\n")
    await eventually(lambda: "adaptors" in process.output)
    assert (await policy(), (await client.ask("/v1/models")).status) == ("2", 200)


async def test_running_streams_have_the_drain_time_to_end_after_sigterm(served: Served, healthy: Simulator) -> None:
    process, url = await served.up("--drain", "20")
    healthy.admin.fault("stall", seconds=1.0, adapter=ADAPTER)
    running = asyncio.ensure_future(RawClient(url, key=KEY).chat(ADAPTER))  # noqa: TID251
    await eventually(lambda: healthy.admin.rules()[0]["fired"])
    process.terminate()
    await eventually(lambda: "draining" in process.output)

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0

    await eventually(refused)
    assert check_stream(await running).whole
    assert await process.ended() == 0
    assert "Traceback" not in process.output


async def test_past_the_drain_time_streams_end_with_an_error_event_and_waiting_requests_with_a_503(
    served: Served, healthy: Simulator
) -> None:
    process, url = await served.up("--drain", "0.5")
    healthy.admin.faults(
        {"fault": "stall", "seconds": None, "contains": "stream me"},
        {"fault": "hang_before_headers", "adapter": ADAPTER},
    )
    client = RawClient(url, key=KEY)
    streaming = asyncio.ensure_future(client.chat(ADAPTER, text="stream me"))  # noqa: TID251
    waiting = asyncio.ensure_future(client.chat(ADAPTER, stream=False))  # noqa: TID251
    await eventually(lambda: all(rule["fired"] for rule in healthy.admin.rules()))
    process.terminate()
    seen = check_stream(await streaming)
    assert (seen.violations, seen.done) == ([], True)
    assert seen.error is not None
    refused = await waiting
    assert (refused.status, check_error(refused).violations) == (503, [])
    assert await process.ended() == 0
    assert "Traceback" not in process.output


async def test_an_idle_gateway_ends_at_once_on_sigterm(served: Served) -> None:
    process, _ = await served.up("--drain", "30")
    process.terminate()
    assert await process.ended(within_s=30.0) == 0


async def test_with_an_admin_port_what_is_not_for_clients_is_only_there(served: Served) -> None:
    process, url = await served.up("--admin-port", "0", env={"FAILSOFT_ADMIN_TOKEN": "token"})
    admin_url = process.output.partition("the admin API listens on ")[2].split()[0]
    token = {"authorization": "Bearer token"}
    statuses = {}
    async with httpx2.AsyncClient(trust_env=False) as client:
        for where, base in (("public", url), ("admin", admin_url)):
            for path in ("/healthz", "/metrics", "/ops", "/admin/status", "/v1/models"):
                statuses[where, path] = (await client.get(base + path, headers=token)).status_code
    assert {path for (where, path), status in statuses.items() if where == "public" and status == 404} == {
        "/metrics",
        "/ops",
        "/admin/status",
    }
    assert statuses["public", "/healthz"] == statuses["admin", "/healthz"] == 200
    assert [statuses["admin", path] for path in ("/metrics", "/ops", "/admin/status")] == [200, 200, 200]
    assert statuses["admin", "/v1/models"] == 404


@pytest.mark.parametrize(
    ("options", "env"),
    [
        ((), {}),
        (("--cors-origin", "https://chat.example.com", "--cors-origin", "http://localhost:3000"), {}),
        (("--cors-origin", "http://localhost:3000", "--workers", "2"), {}),
        ((), {"FAILSOFT_CORS_ORIGINS": "https://chat.example.com http://localhost:3000"}),
    ],
    ids=["nobody, unless named", "by options", "by every worker", "by the environment"],
)
async def test_web_pages_may_ask_whose_origin_is_named(
    served: Served, options: tuple[str, ...], env: dict[str, str]
) -> None:
    _, url = await served.up(*options, env=env)
    headers = {"authorization": f"Bearer {KEY}", "origin": "http://localhost:3000"}
    async with httpx2.AsyncClient(trust_env=False) as client:
        answers = [await client.get(f"{url}/v1/models", headers=headers | {"connection": "close"}) for _ in range(8)]
        health = await client.get(f"{url}/healthz", headers=headers)
    allowed = {answer.headers.get("access-control-allow-origin") for answer in answers}
    assert allowed == {"http://localhost:3000" if options or env else None}
    assert "access-control-allow-origin" not in health.headers


@pytest.mark.parametrize("origin", ["chat.example.com", "https://chat.example.com/", "*", "ftp://x"])
async def test_what_is_no_origin_ends_the_start(served: Served, origin: str) -> None:
    process = served.start("--cors-origin", origin)
    assert await process.ended(within_s=20.0) == 2
    assert "is no origin" in process.output


async def test_policies_that_do_not_hold_together_end_the_start_with_every_place(served: Served) -> None:
    (served.policies / "customers" / "acme.yaml").write_text(
        f'customer: acme\nadaptors: [acme_v3]\napi_keys: ["{digest(KEY)}"]\nttft_budget: soon\n'
    )
    process = served.start()
    assert await process.ended(within_s=20.0) == 1
    where = served.policies / "customers" / "acme.yaml"
    assert f"{where}:2:1: error" in process.output
    assert f"{where}:4:1: error: ttft_budget" in process.output
    assert "adapters" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
async def test_a_port_that_is_taken_is_one_clear_line(served: Served, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = served.start(option, str(port))
        assert await process.ended(within_s=20.0) == 1
    (line,) = process.output.splitlines()
    assert line.startswith(f"failsoft: cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.fixture
def gateway_leaves_the_collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


async def test_a_start_that_fails_leaves_no_socket_open(tmp_path: Path) -> None:
    with socket.socket() as taken, socket.socket() as again:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        again.bind(("127.0.0.1", 0))
        port = again.getsockname()[1]
        again.close()
        settings = Settings(tmp_path, None, tmp_path / "state", port=port, admin_port=taken.getsockname()[1])
        with pytest.raises(ListenError) as caught:
            await Gateway(settings).run()
        # The error keeps the frames that held the socket alive: it is free because it was closed.
        with socket.socket() as now_free:
            now_free.bind(("127.0.0.1", port))
        assert "Address already in use" in str(caught.value)


async def test_a_listener_that_dies_ends_the_gateway(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateway_leaves_the_collector_as_it_was: None
) -> None:
    async def dies(self: QuietServer, sockets: object = None) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(QuietServer, "serve", dies)
    with pytest.raises(OSError, match="too many open files"):
        await Gateway(Settings(served.policies, None, tmp_path / "state", port=0)).run()


async def test_without_policies_there_is_nothing_to_serve(served: Served, processes: Processes) -> None:
    command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0"]
    process = processes.command(command, name="gateway", env={"FAILSOFT_REDIS": ""})
    assert await process.ended(within_s=20.0) == 2
    assert "--policies" in process.output
    missing = processes.command([*command, "--policies", served.policies / "nowhere"], name="gateway")
    assert await missing.ended(within_s=20.0) == 1
    assert "nowhere" in missing.output
    assert "Traceback" not in missing.output
