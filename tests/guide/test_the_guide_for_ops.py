"""Every example of docs/policies.md, run in its order with two gateways on one store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.store_process import StoreProcess
from tests.guide.reading import Command, File, examples
from tests.support.processes import ROOT, Process, Processes

GUIDE = ROOT / "docs" / "policies.md"
TOKEN = "an-admin-token"
PROVIDER_KEY = "sk-provider"
LONGEST_S = 120
APPLIED = "failsoft policies apply"


class Desk:
    """A folder of policies, a store, and two gateways from the first ``apply`` on. Addresses in the guide stand for
    simulated boxes and a stand-in provider."""

    def __init__(self, processes: Processes, store: StoreProcess, folder: Path) -> None:
        self._processes = processes
        self._store = store
        self._folder = folder
        boxes = [processes.box(name=name, adapters=["customer_acme_v3", "customer_acme_v4"]) for name in ("a", "b")]
        provider = processes.provider(api_key=PROVIDER_KEY, model=["gpt-4o-mini"], tokens=8)
        for one in (*boxes, provider):
            one.wait_ready()
        self._stands_for = {
            "http://10.0.0.11:8000": boxes[0].url,
            "http://10.0.0.12:8000": boxes[1].url,
            "https://api.openai.com/v1": f"{provider.url}/v1",
        }
        self._gateways: list[Process] = []
        command = folder / "bin" / "failsoft"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway.cli "$@"\n')
        command.chmod(0o755)
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "FAILSOFT_"))},
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
            "FAILSOFT_REDIS": store.url,
            "FAILSOFT_ADMIN_TOKEN": TOKEN,
            "OPENAI_API_KEY": PROVIDER_KEY,
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def write(self, file: File) -> None:
        path = self._folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = file.become(path.read_text() if path.exists() else "")
        for address, url in self._stands_for.items():
            text = text.replace(address, url)
        path.write_text(text)

    def run(self, command: Command) -> None:
        ran = subprocess.run(
            ["sh", "-c", command.command],
            cwd=self._folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        where = f"{GUIDE.name}:{command.line}: $ {command.command}"
        assert ran.returncode == command.exit_code, f"{where} exits with {ran.returncode}:\n{ran.stdout}"
        assert command.matches(ran.stdout), f"{where} prints\n{ran.stdout}\nand the guide says\n{command.expected}"
        if command.command.startswith(APPLIED) and not self._gateways:
            self._start_gateways()

    def _start_gateways(self) -> None:
        for number in range(2):
            serve = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", "--redis", self._store.url]
            serve += ["--state", str(self._folder / f"state-{number}")]
            self._gateways.append(self._processes.command(serve, name=f"gateway-{number}", env=self._env))
        for gateway in self._gateways:
            gateway.wait_ready(lambda process=gateway: "failsoft listens on " in process.output)
        first = self._gateways[0]
        self._env["FAILSOFT_URL"] = first.output.partition("failsoft listens on ")[2].split()[0]


@pytest.fixture
def desk(processes: Processes, tmp_path: Path) -> Iterator[Desk]:
    store = StoreProcess.start(processes)
    store.wait_ready()
    yield Desk(processes, store, tmp_path)
    store.close()


@pytest.mark.timeout(400)
def test_every_example_does_what_the_guide_says(desk: Desk) -> None:
    for example in examples(GUIDE):
        if isinstance(example, File):
            desk.write(example)
        else:
            desk.run(example)


def test_the_guide_has_examples_of_every_command_about_policies() -> None:
    commands = {" ".join(one.command.split()[:3]) for one in examples(GUIDE) if isinstance(one, Command)}
    for name in ("validate", "new", "new-key", "diff", "apply", "history", "show", "rollback", "schema"):
        assert f"failsoft policies {name}" in commands
