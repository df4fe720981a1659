"""A box that is named by DNS, as a StatefulSet's pods are: the gateway follows its name to another address."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import httpx2
import pytest

from tests.cli.served import KEY, digest
from tests.support.processes import Processes, Simulator
from tests.support.redis_server import free_port

NAME = "vllm-0.vllm.failsoft.svc"
OWN_HOSTS = 'mount --bind "$HOSTS" /etc/hosts && exec "$@"'


@cache
def possible() -> bool:
    """Whether this machine lets a process have an /etc/hosts of its own."""
    if os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def asked(box: Simulator, model: str) -> int:
    return len(box.admin.requests(model=model))


@pytest.mark.timeout(180)
async def test_a_pod_made_anew_under_its_name_is_asked_at_its_new_address_though_the_old_one_answers(
    processes: Processes, tmp_path: Path
) -> None:
    if not possible():
        pytest.skip("an /etc/hosts of its own takes root here")
    port = free_port()
    addresses = ("127.0.0.1", "127.0.0.2")
    old, new = (processes.box(name=host, adapters=["acme_v3"], host=host, port=port, ttft_ms=20) for host in addresses)
    for box in (old, new):
        await box.ready()
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 {NAME}\n")
    (tmp_path / "policies" / "customers").mkdir(parents=True)
    fleet = {"base_model": "base", "boxes": {"vllm-0": {"url": f"http://{NAME}:{port}"}}}
    (tmp_path / "policies" / "fleet.yaml").write_text(json.dumps({"fleets": {"main": fleet}}))
    acme = {"customer": "acme", "api_keys": [digest(KEY)], "adapters": ["acme_v3"], "fallback": [{"static": "Later."}]}
    (tmp_path / "policies" / "customers" / "acme.yaml").write_text(json.dumps(acme))
    serve = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", "--policies", str(tmp_path / "policies")]
    command = [
        "unshare",
        "--mount",
        "--",
        "sh",
        "-ec",
        OWN_HOSTS,
        "with-hosts",
        *serve,
        "--state",
        str(tmp_path / "state"),
    ]
    gateway = processes.command(command, name="gateway", env={"HOSTS": str(hosts)})
    await gateway.ready(lambda: "failsoft listens on " in gateway.output)
    url = gateway.output.partition("failsoft listens on ")[2].split()[0]

    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client:

        async def a_round() -> None:
            """Requests side by side, again and again, so that no connection to the box is ever idle for long."""

            async def one_after_another() -> None:
                for _ in range(5):
                    body = {"model": "acme_v3", "messages": [{"role": "user", "content": "Hello"}]}
                    answer = await client.post("/v1/chat/completions", json=body)
                    assert answer.status_code == 200
                    assert answer.headers["x-failsoft-served-by"] == "box:vllm-0"

            await asyncio.gather(*(one_after_another() for _ in range(8)))

        await a_round()
        assert (asked(old, "acme_v3"), asked(new, "acme_v3")) == (40, 0)
        hosts.write_text(f"127.0.0.2 {NAME}\n")
        for _ in range(200):
            before = asked(old, "acme_v3")
            await a_round()
            if asked(old, "acme_v3") == before:
                break
        else:
            pytest.fail("the old address is asked on")
        # And with the old one gone nobody notices.
        old.kill()
        await a_round()
