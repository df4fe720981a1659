"""`failsoft load` against a real gateway and simulated boxes, all in processes of their own."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.planner.observed import COLUMNS
from gateway.cli.main import main
from tests.cli.served import Served
from tests.support.processes import Processes, Simulator

CUSTOMERS = ("acme", "globex", "initech")
TRAFFIC = """\
requests_per_minute: 1200
duration: 1500ms
warm_up: 500ms
customers: {acme: 4, globex: 2, initech: 1}
prompt_tokens: {uniform: [5, 40]}
output_tokens: {uniform: [4, 12]}
stream: 0.7
seed: 11
"""


@pytest.fixture
def box(processes: Processes) -> Simulator:
    started = processes.box(adapters=[f"{name}_v3" for name in CUSTOMERS], ttft_ms=5, itl_ms=1)
    started.wait_ready()
    return started


def report_in(output: str) -> Any:
    """The JSON that stands behind what was said on standard error."""
    return json.loads(output[output.index("\n{") :])


class House:
    """A gateway with three customers, and the files that the load test is given."""

    def __init__(self, processes: Processes, folder: Path, *boxes: str) -> None:
        self.folder = folder
        self.processes = processes
        self.served = Served(processes, folder, *boxes)
        for name in CUSTOMERS:
            self.served.customer(name, f"key-of-{name}", ttft_budget="5s", plain_budget="6s")
        (folder / "keys.yaml").write_text("".join(f"{name}: key-of-{name}\n" for name in CUSTOMERS))
        (folder / "traffic.yaml").write_text(TRAFFIC)
        self.url = ""

    async def up(self) -> None:
        _, self.url = await self.served.up()

    async def load(self, *options: str, status: int = 0) -> Any:
        """Run the command; its report."""
        command = [sys.executable, "-m", "gateway.cli", "load", "--url", self.url, "--json", *options]
        command += ["--keys", str(self.folder / "keys.yaml"), "--policies", str(self.served.policies)]
        process = self.processes.command(command, name="load")
        assert await process.ended(within_s=50) == status, process.output
        return report_in(process.output)

    def file(self, name: str) -> str:
        return str(self.folder / name)


async def test_a_run_reports_what_each_customer_got(processes: Processes, tmp_path: Path, box: Simulator) -> None:
    house = House(processes, tmp_path, box.url)
    await house.up()
    document = await house.load(
        "--traffic", house.file("traffic.yaml"), "--box", box.url,
        "--record", house.file("trace.jsonl"), "--out", house.file("a.json"), "--html", house.file("a.html"),
        "--samples",
    )  # fmt: skip
    overall = document["overall"]
    samples = document["samples"]
    assert samples.keys() >= set(COLUMNS)
    assert {len(column) for column in samples.values()} == {overall["requests"] + document["run"]["warm_up_requests"]}
    assert set(samples["served_by"]) == {"box:a"}
    firsts = zip(samples["sent_s"], samples["first_s"], samples["last_s"], strict=True)
    assert all(sent < first <= last for sent, first, last in firsts if first is not None)
    assert overall["requests"] == overall["answered"] > 10
    assert overall["ttft_ms"]["count"] == overall["streamed"] < overall["requests"]
    assert overall["ttft_ms"]["p50"] >= 5
    assert set(document["customers"]) == set(CUSTOMERS)
    assert document["degraded"] == document["errors"] == {}
    assert document["targets"]["box:a"]["answers"] == overall["requests"]
    assert document["boxes"] == ["a"]
    assert document["swaps"]["by_box"].keys() == {"a"}
    assert document["run"]["budgets"]["acme"] == {"ttft_s": 5.0, "plain_s": 6.0}
    # The box's own count, which began with what was measured, holds the answers to those and no fewer.
    assert next(iter(document["engines"].values()))["output_tokens"] >= overall["output_tokens"] > 0
    assert json.loads((tmp_path / "a.json").read_text()) == document
    assert "<svg" in (tmp_path / "a.html").read_text()

    # The same again from the trace: the same requests, warm-up and all, at the same times.
    lines = (tmp_path / "trace.jsonl").read_text().splitlines()
    assert len(lines) == overall["requests"] + document["run"]["warm_up_requests"]
    again = await house.load("--trace", house.file("trace.jsonl"), "--speed", "4")
    assert again["overall"]["requests"] == len(lines)
    assert again["run"]["trace"] == "trace.jsonl"
    everything = box.admin.requests(path="/v1/chat/completions")
    assert len(everything) >= 2 * len(lines)


async def test_an_interrupt_ends_it_with_a_report_of_what_was_sent(
    processes: Processes, tmp_path: Path, box: Simulator
) -> None:
    house = House(processes, tmp_path, box.url)
    await house.up()
    command = [sys.executable, "-m", "gateway.cli", "load", "--url", house.url, "--keys", house.file("keys.yaml")]
    process = processes.command([*command, "--duration", "10m", "--warm-up", "0s", "--json"], name="load")
    await process.ready(lambda: len(box.admin.requests(model="acme_v3")) >= 5)
    process.child.send_signal(signal.SIGINT)
    assert await process.ended(within_s=20) == 0, process.output
    document = report_in(process.output)
    assert document["run"]["interrupted"]
    assert document["run"]["unsent"] > 5000
    assert document["overall"]["requests"] >= 4
    assert document["run"]["measured_s"] < 300


async def test_degraded_answers_are_counted_by_reason(processes: Processes, tmp_path: Path, box: Simulator) -> None:
    house = House(processes, tmp_path, box.url)
    await house.up()
    box.kill()
    document = await house.load("--rate", "900", "--duration", "1s", "--warm-up", "0s")
    overall = document["overall"]
    assert overall["answered"] == overall["requests"] == overall["degraded"]
    assert set(document["degraded"]) <= {"backend_down", "circuit_open"}
    assert document["targets"].keys() == {"static"}
    assert overall["goodput"]["share"] == 1
    assert overall["goodput"]["own"] == 0


async def test_too_little_in_time_is_exit_1(processes: Processes, tmp_path: Path) -> None:
    house = House(processes, tmp_path)
    house.served.write("defaults.yaml", {"defaults": {"fallback": []}})
    house.served.write(
        "fleet.yaml", {"fleets": {"main": {"base_model": "base", "boxes": {"a": {"url": "http://127.0.0.1:9"}}}}}
    )
    await house.up()
    document = await house.load("--rate", "600", "--duration", "1s", "--warm-up", "0s", status=1)
    assert document["overall"]["answered"] == 0
    assert all(error.startswith("status 503") for error in document["errors"])


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--keys", "KEYS", "--url", "http://127.0.0.1:9"], 3, "cannot be reached"),
        (["--keys", "missing.yaml"], 2, "missing.yaml"),
        ([], 2, "give --keys FILE, or start the demo"),
        (["--keys", "KEYS", "--traffic", "TRAFFIC"], 2, "did you mean seed?"),
        (["--keys", "KEYS", "--duration", "60"], 2, "--duration"),
        (["--keys", "KEYS", "--trace", "t.jsonl", "--rate", "60"], 2, "has its own times"),
        (["--keys", "KEYS", "--url", "ftp://x"], 2, "not a URL"),
    ],
)
def test_mistakes_are_named_before_anything_is_sent(
    arguments: list[str],
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "keys.yaml").write_text("acme: key\n")
    (tmp_path / "traffic.yaml").write_text("seeed: 1\n")
    files = {"KEYS": str(tmp_path / "keys.yaml"), "TRAFFIC": str(tmp_path / "traffic.yaml")}
    with pytest.raises(SystemExit) as ended:
        main(["load", *(files.get(one, one) for one in arguments)])
    assert ended.value.code == status
    assert said in " ".join(capsys.readouterr().err.split())
