"""`failsoft status`: from a running gateway's admin API to an exit code."""

from __future__ import annotations

import asyncio
import json
import re
import socket

import pytest
from typer.testing import Result

from gateway.cli.status import status
from gateway.errors import ConnectError, UpstreamStatus
from gateway.fleet.engine_metrics import EngineReading
from gateway.policy.compiled import CompiledPolicy
from tests.control.conftest import TOKEN, House, run


async def ask(*arguments: str, token: str = TOKEN) -> Result:
    return await run(status, *arguments, token=token)


async def test_all_well_is_zero(house: House, policy: CompiledPolicy, url: str) -> None:
    house.take(policy)
    house.now += 3
    result = await ask("--url", url)
    assert result.exit_code == 0, result.output
    assert "policy version 1 from folder" in result.output
    assert result.output.count("serving") == 2


async def test_a_box_that_does_not_serve_is_one_and_says_why(house: House, policy: CompiledPolicy, url: str) -> None:
    house.take(policy)
    house.now += 3
    permit = house.fleets.all()[0].admit(None, house.now)
    assert permit is not None
    permit.failed(ConnectError("connection [refused]"), house.now)
    house.alarms.on("policy_store_empty", "store", "the store was found empty")
    result = await ask("--url", url)
    assert result.exit_code == 1
    assert "circuit open" in result.output
    assert "connection [refused]" in result.output
    assert "the store was found empty" in result.output


async def test_it_shows_how_busy_a_box_is_and_which_adapters_fail_there(
    house: House, policy: CompiledPolicy, url: str
) -> None:
    house.take(policy)
    house.now += 3
    a, _ = house.fleets.all()
    a.load.probed(0.25)
    a.load.read(EngineReading(house.now, waiting_capacity=1.0, waiting_deferred=2.0))
    running = a.admit("acme_v3", house.now)
    for error in (UpstreamStatus(404), *[UpstreamStatus(500)] * 3):
        adapter = "acme_v4" if error.status == 404 else "acme_v3"
        permit = a.admit(adapter, house.now)
        assert permit is not None
        permit.failed(error, house.now)
    result = await ask("--url", url)
    for cell in ("1 / 256", "1, 2 for a slot", "missing: acme_v4; failing: acme_v3"):
        assert cell in result.output
    assert re.search(r"│ 0\.\d\d s +│", result.output), "the estimate"
    a.drain()
    assert "drained" in (await ask("--url", url)).output
    a.undrain(house.now)
    assert "serving, in its ramp" in (await ask("--url", url)).output
    assert running is not None
    running.released()


async def test_json_is_what_the_admin_api_says(house: House, policy: CompiledPolicy, url: str) -> None:
    house.take(policy)
    result = await ask("--url", url, "--json")
    assert result.exit_code == 1, "not ready yet"
    assert json.loads(result.stdout)["policy"]["version"] == 1


async def test_before_the_first_policy_it_says_so(url: str) -> None:
    result = await ask("--url", url)
    assert result.exit_code == 1
    assert "no policy version yet" in result.output


async def test_a_wrong_token_is_three_and_names_the_variable(url: str) -> None:
    result = await ask("--url", url, token="wrong")
    assert result.exit_code == 3
    assert "FAILSOFT_ADMIN_TOKEN" in result.stderr


async def test_nothing_there_is_three_and_names_the_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    result = await ask("--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 3
    assert "FAILSOFT_URL" in result.stderr


async def test_something_that_is_no_gateway_is_three() -> None:
    async def html(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(html, "127.0.0.1", 0)
    async with server:
        result = await ask("--url", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert result.exit_code == 3
    assert "does not answer as a failsoft gateway" in result.stderr


@pytest.mark.parametrize("url", ["not a url", "http://", "ftp://x"])
async def test_a_url_that_is_none_is_three(url: str) -> None:
    result = await ask("--url", url)
    assert result.exit_code == 3
