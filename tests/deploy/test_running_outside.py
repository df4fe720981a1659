"""Every command and health check of compose.yaml that can run without a container, run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.deploy.compose import DEPLOY, SERVICES, health_check, seconds, words
from tests.deploy.outside import Outside
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.redis_server import free_port

pytestmark = pytest.mark.timeout(180)


async def ask(outside: Outside) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.post(
            f"http://127.0.0.1:{outside.port['gateway']}/v1/chat/completions",
            headers={"authorization": "Bearer sk-acme-try"},
            json={"model": "customer_acme_v3", "messages": [{"role": "user", "content": "Where is my parcel?"}]},
        )


async def test_the_simulated_profile_comes_up_answers_degrades_and_ends_in_time(
    processes: Processes, tmp_path: Path
) -> None:
    outside = Outside(processes, tmp_path, "simulated", "cpu")
    started = {}
    for host in ("redis", "vllm-a", "vllm-b", "provider", "gateway"):
        assert not outside.healthy(host), f"{host} is healthy before it is started"
        started[host] = outside.start(host)
        await started[host].ready(lambda host=host: outside.healthy(host))  # type: ignore[misc]

    answer = await ask(outside)
    assert answer.status_code == 200
    assert answer.headers["x-failsoft-served-by"] in ("box:vllm-a", "box:vllm-b")
    assert answer.json()["model"] == "customer_acme_v3"

    for host in ("vllm-a", "vllm-b"):
        started[host].kill()
        assert not outside.healthy(host)
    answer = await ask(outside)
    assert answer.status_code == 200
    assert answer.headers["x-failsoft-served-by"] == "provider:hosted"
    # By who comes first to find them gone: the request, or a probe.
    assert answer.json()["degraded"]["reason"] in ("backend_down", "circuit_open")

    async with httpx2.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{outside.admin_port}") as admin:
        assert 'failsoft_box_state{box="vllm-a"' in (await admin.get("/metrics")).text
        token = SERVICES["gateway"]["environment"]["FAILSOFT_ADMIN_TOKEN"]
        assert (await admin.get("/admin/status", headers={"authorization": f"Bearer {token}"})).status_code == 200
        assert (await admin.get("/admin/status")).status_code == 401

    grace_s = seconds(SERVICES["gateway"]["stop_grace_period"])
    for host in ("gateway", "provider", "redis"):
        started[host].terminate()
        # By the signal (-15) too, as nothing is lost where nothing is kept.
        assert await started[host].ended(within_s=grace_s) in (0, -15), host
    assert started["gateway"].child.returncode == 0


async def test_prometheus_reads_a_gateway_as_its_configuration_says(processes: Processes, tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus is installed here")
    outside = Outside(processes, tmp_path, "simulated", "cpu")
    for host in ("redis", "vllm-a", "gateway"):
        process = outside.start(host)
        await process.ready(lambda host=host: outside.healthy(host))  # type: ignore[misc]
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    config = folder / "prometheus.yml"
    text = config.read_text().replace("gateway:9090", f"127.0.0.1:{outside.admin_port}")
    config.write_text(text.replace("vllm-a:8000", f"127.0.0.1:{outside.port['vllm-a']}").replace(" 5s", " 1s"))
    paths = {"/etc/prometheus": str(folder), "/prometheus": str(tmp_path / "tsdb")}
    command = []
    for word in words(SERVICES["prometheus"]["command"]):
        flag, _, value = word.partition("=")
        inside = next((path for path in paths if value == path or value.startswith(f"{path}/")), None)
        command.append(word if inside is None else f"{flag}={value.replace(inside, paths[inside], 1)}")
    port = free_port()
    process = processes.command([program, *command, f"--web.listen-address=127.0.0.1:{port}"], name="prometheus")
    check = [word.replace("127.0.0.1:9090", f"127.0.0.1:{port}") for word in health_check(SERVICES["prometheus"])]

    def healthy() -> bool:
        if shutil.which(check[0]) is None:
            return httpx2.get(check[-1], trust_env=False).status_code == 200
        return subprocess.run(check, capture_output=True, check=False).returncode == 0

    await process.ready(lambda: "Server is ready" in process.output)
    assert healthy()

    def asked(query: str) -> dict[str, float]:
        answer = httpx2.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, trust_env=False).json()
        found = [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]
        return {metric.get("box") or metric["job"]: value for metric, value in found}

    await eventually(lambda: asked("up") == {"failsoft": 1.0, "vllm-a": 1.0, "vllm-b": 0.0}, within_s=20)
    closed = 'failsoft_box_state{state="closed"}'
    await eventually(lambda: asked(closed) == {"vllm-a": 1.0, "vllm-b": 0.0}, within_s=20)


def test_a_health_check_needs_no_shell() -> None:
    for service in SERVICES.values():
        assert health_check(service)[0] in ("python", "python3", "valkey-cli", "wget")
