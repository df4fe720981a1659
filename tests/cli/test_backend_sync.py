"""`failsoft backend sync`: what simulated boxes have becomes what policies name, and what people are told of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from tests.faults.store_process import StoreProcess
from tests.support.eventually import eventually
from tests.support.processes import Processes, Simulator

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
CHAT = "/v1/chat/completions"


class House:
    """Two simulated boxes that have ``acme_v3``, and a folder of policies that names it."""

    def __init__(self, folder: Path, a: Simulator, b: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
        self.policies = folder / "policies"
        (self.policies / "customers").mkdir(parents=True)
        self.boxes = {"a": a, "b": b}
        self._capsys = capsys
        self.fleet()
        self.customer("acme", "acme_v3")

    def fleet(self, boxes: dict[str, Any] | None = None, **keys: Any) -> None:
        found = {
            name: {"url": box.url, "max_loras": 2, **(boxes or {}).get(name, {})} for name, box in self.boxes.items()
        }
        fleet = {"base_model": "base", "adapter_root": "/adapters", "boxes": found, **keys}
        (self.policies / "fleet.yaml").write_text(json.dumps({"fleets": {"main": fleet}}))

    def customer(self, name: str, *adapters: str) -> None:
        policy = {"customer": name, "api_keys": [], "adapters": adapters}
        (self.policies / "customers" / f"{name}.yaml").write_text(json.dumps(policy))

    def sync(self, *options: str, redis: str | None = None) -> tuple[int, str]:
        """The exit status and all that was printed."""
        source = ["--redis", redis] if redis is not None else ["--policies", str(self.policies)]
        with pytest.raises(SystemExit) as ended:
            main(["backend", "sync", *options, *source])
        printed = self._capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    def facts(self, *options: str, redis: str | None = None) -> dict[str, Any]:
        _, out = self.sync("--json", *options, redis=redis)
        found: dict[str, Any] = json.loads(out)
        return found

    def has(self, box: str) -> set[str]:
        """The adapters that the box lists now."""
        import httpx2

        models = httpx2.get(f"{self.boxes[box].url}/v1/models", trust_env=False).json()["data"]
        return {model["id"] for model in models if model["parent"] is not None}

    def asked(self, box: str) -> list[tuple[str, str]]:
        """Every load, unload and chat, in order."""
        return [
            (request["path"].rpartition("/")[2], request["model"])
            for request in self.boxes[box].admin.requests()
            if request["path"] in (LOAD, UNLOAD, CHAT)
        ]


@pytest.fixture
def house(tmp_path: Path, processes: Processes, capsys: pytest.CaptureFixture[str]) -> House:
    a, b = (processes.box(name=name, adapters=["acme_v3"], tokens=2) for name in ("a", "b"))
    for box in (a, b):
        box.wait_ready()
    return House(tmp_path, a, b, capsys)


def test_a_new_adapter_is_loaded_from_its_own_path_and_has_to_answer(house: House) -> None:
    house.customer("acme", "acme_v3", "acme_v4")
    code, said = house.sync()
    assert code == 0
    assert "a: load acme_v4 (/adapters/acme_v4)" in said
    assert "a: acme_v4 loaded (" in said
    assert "b: acme_v4 answers (" in said
    assert "2 boxes: 2 loaded, 0 unloaded, 4 as they should be" in said
    for box in "ab":
        assert house.has(box) == {"acme_v3", "acme_v4"}
        assert house.asked(box) == [("load_lora_adapter", "acme_v4"), ("completions", "acme_v4")]
    [load] = house.boxes["a"].admin.requests(path=LOAD)
    assert load["body"] == {"lora_name": "acme_v4", "lora_path": "/adapters/acme_v4"}
    assert house.sync() == (0, "2 boxes: 0 loaded, 0 unloaded, 4 as they should be\n")


def test_a_dry_run_says_the_plan_and_does_nothing(house: House) -> None:
    house.customer("acme", "acme_v3", "acme_v4")
    house.customer("globex", "globex_v1")
    code, said = house.sync("--dry-run")
    assert code == 0
    assert said.splitlines() == [
        "a: load acme_v4 (/adapters/acme_v4)",
        "a: load globex_v1 (/adapters/globex_v1)",
        "b: load acme_v4 (/adapters/acme_v4)",
        "b: load globex_v1 (/adapters/globex_v1)",
        "2 boxes: 4 to load, 0 to unload, 2 as they should be",
    ]
    assert house.asked("a") == house.asked("b") == []


def test_only_the_boxes_that_were_named_are_touched(house: House) -> None:
    house.customer("acme", "acme_v3", "acme_v4")
    assert house.sync("b")[0] == 0
    assert house.has("a") == {"acme_v3"}
    assert house.has("b") == {"acme_v3", "acme_v4"}


def test_an_adapter_may_lie_elsewhere(house: House) -> None:
    house.fleet(adapter_paths={"acme_v4": "/elsewhere/acme/4"})
    house.customer("acme", "acme_v3", "acme_v4")
    assert "a: load acme_v4 (/elsewhere/acme/4)" in house.sync()[1]


def test_what_the_box_refuses_is_said_in_its_own_words_with_what_to_do(house: House) -> None:
    house.customer("acme", "acme_v3", "acme_v4")
    house.boxes["a"].admin.fault(
        "status", path=LOAD, status=500, message="LoRA rank 64 is greater than max_lora_rank 16"
    )
    code, said = house.sync()
    assert code == 1
    assert "a: acme_v4 was not loaded: status 500: LoRA rank 64 is greater than max_lora_rank 16" in said
    assert "`failsoft backend check`" in said
    assert house.has("a") == {"acme_v3"}
    assert house.has("b") == {"acme_v3", "acme_v4"}, "the other box is not worse for it"
    assert [path for path, _ in house.asked("a")].count("load_lora_adapter") == 1


@pytest.mark.parametrize(
    "fault",
    [{"fault": "status", "status": 500}, {"fault": "empty_200"}, {"fault": "error_frame_first"}, {"fault": "abort"}],
    ids=lambda fault: fault["fault"],
)
def test_one_that_does_not_answer_is_unloaded_again(house: House, fault: dict[str, Any]) -> None:
    house.customer("acme", "acme_v3", "acme_v4")
    for box in house.boxes.values():
        box.admin.faults({**fault, "adapter": "acme_v4", "path": CHAT})
    code, said = house.sync()
    assert code == 1
    assert "a: acme_v4 was unloaded again: does not answer: " in said
    assert house.has("a") == house.has("b") == {"acme_v3"}


def test_a_box_that_dies_of_an_adapter_keeps_it_from_the_others(house: House) -> None:
    house.customer("acme", "acme_v3", "acme_v4")
    house.boxes["a"].admin.fault("die", path=LOAD)
    code, said = house.sync()
    assert code == 1
    assert "a: does not answer" in said or "a: acme_v4 was not loaded" in said
    assert "b: acme_v4" in said
    assert "box a was gone" in said
    assert house.asked("b") == []


def test_a_box_without_room_in_main_memory_gets_no_more(house: House) -> None:
    house.fleet({"a": {"max_cpu_loras": 2}})
    house.customer("acme", "acme_v3", "acme_v4", "acme_v5")
    code, said = house.sync()
    assert code == 1
    assert "a: acme_v5 does not fit: the box lists 1 adapters and max_cpu_loras is 2" in said
    assert house.has("a") == {"acme_v3", "acme_v4"}
    assert house.has("b") == {"acme_v3", "acme_v4", "acme_v5"}


def test_the_same_name_from_another_path_is_a_conflict_unless_it_may_be_replaced(house: House) -> None:
    house.fleet(adapter_paths={"acme_v3": "/adapters/acme_v3.1"})
    code, said = house.sync()
    assert code == 1
    assert "a: acme_v3 is loaded from /adapters/acme_v3, and policies say /adapters/acme_v3.1" in said
    assert house.asked("a") == []
    assert house.sync("--replace")[0] == 0
    assert [path for path, _ in house.asked("a")] == ["unload_lora_adapter", "load_lora_adapter", "completions"]
    assert house.sync() == (0, "2 boxes: 0 loaded, 0 unloaded, 2 as they should be\n")


def test_nothing_is_ever_loaded_in_place(house: House) -> None:
    """vLLM would read it again at every step from then on; a replaced one is unloaded first."""
    house.fleet(adapter_paths={"acme_v3": "/adapters/acme_v3.1"})
    house.customer("acme", "acme_v3", "acme_v4")
    assert house.sync("--replace", "--verify")[0] == 0
    loads = [request["body"] for box in house.boxes.values() for request in box.admin.requests(path=LOAD)]
    assert sorted(body["lora_name"] for body in loads) == ["acme_v3", "acme_v3", "acme_v4", "acme_v4"]
    assert all(body.keys() == {"lora_name", "lora_path"} for body in loads)


def test_what_no_policy_is_known_to_have_named_stays_unless_pruned(house: House) -> None:
    house.customer("acme", "acme_v4")
    code, said = house.sync()
    assert code == 0
    assert "a: leave acme_v3: not ours" in said
    assert house.has("a") == {"acme_v3", "acme_v4"}
    assert house.sync("--prune")[0] == 0
    assert house.has("a") == {"acme_v4"}


def test_one_token_tells_whether_those_that_were_there_answer(house: House) -> None:
    assert house.sync("--verify")[0] == 0
    assert house.asked("a") == [("completions", "acme_v3")]
    house.boxes["a"].admin.fault("status", path=CHAT, status=500, adapter="acme_v3")
    code, said = house.sync("--verify")
    assert code == 1
    assert "a: acme_v3 does not answer: status 500" in said
    assert house.has("a") == {"acme_v3"}, "what others have loaded is not unloaded for that"


def test_a_box_that_takes_no_adapters_at_run_time_is_told_how_to_be_started(house: House, processes: Processes) -> None:
    house.boxes["a"] = processes.box(name="c", adapters=["acme_v3"], no_runtime_loading=True)
    house.boxes["a"].wait_ready()
    house.fleet()
    house.customer("acme", "acme_v3", "acme_v4")
    code, said = house.sync()
    assert code == 1
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in said
    assert house.has("b") == {"acme_v3", "acme_v4"}


def test_a_box_with_a_key_is_asked_with_it(house: House, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    house.boxes["a"] = processes.box(name="c", adapters=["acme_v3"], api_key="secret")
    house.boxes["a"].wait_ready()
    house.fleet({"a": {"api_key": "${BOX_KEY}"}})
    house.customer("acme", "acme_v3", "acme_v4")
    monkeypatch.delenv("BOX_KEY", raising=False)
    code, said = house.sync("a")
    assert code == 3
    assert "a: cannot be asked: its api_key refers to ${BOX_KEY}, and ${BOX_KEY} is not set" in said
    monkeypatch.setenv("BOX_KEY", "wrong")
    code, said = house.sync("a")
    assert code == 3
    assert "the box refuses our key" in said
    monkeypatch.setenv("BOX_KEY", "secret")
    assert house.sync("a")[0] == 0
    assert "secret" not in said


def test_a_box_that_is_away_does_not_keep_the_other_from_its_adapters(house: House) -> None:
    house.boxes["a"].kill()
    house.customer("acme", "acme_v3", "acme_v4")
    code, said = house.sync()
    assert code == 3
    assert "a: does not answer" in said
    assert house.has("b") == {"acme_v3", "acme_v4"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "give --policies DIR or --redis URL"),
        (["--policies", "{policies}", "--redis", "redis://127.0.0.1:1"], "give one of --policies and --redis"),
        (["--policies", "{policies}", "--every", "often"], "is not a duration"),
        (["nosuch", "--policies", "{policies}"], "there is no box nosuch"),
    ],
    ids=["no source", "two sources", "no duration", "no such box"],
)
def test_misuse(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], why: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for variable in ("FAILSOFT_REDIS", "FAILSOFT_POLICIES"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["backend", "sync", *(argument.format(policies=house.policies) for argument in arguments)])
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_a_store_that_is_away_and_policies_that_do_not_hold_together(house: House, tmp_path: Path) -> None:
    code, said = house.sync(redis=f"unix://{tmp_path}/nobody")
    assert code == 3
    assert "failsoft: " in said
    (house.policies / "fleet.yaml").write_text("fleets: {}")
    code, said = house.sync()
    assert code == 1
    assert "the policies do not hold together" in said


def test_machines_are_told_all_of_it(house: House) -> None:
    house.customer("acme", "acme_v4")
    found = house.facts("a")
    assert found["ok"] is True
    [box] = found["boxes"]
    assert (box["box"], box["reached"], box["trouble"], box["kept"]) == ("a", True, "", ["acme_v4"])
    assert [(step["action"], step["adapter"], step["outcome"]) for step in box["done"]] == [
        ("load", "acme_v4", "done"),
        ("verify", "acme_v4", "done"),
    ]
    [left] = box["left"]
    assert (left["adapter"], left["why"]) == ("acme_v3", "not_ours")


async def test_with_a_store_what_an_earlier_version_named_goes_when_its_successor_answers(
    house: House, redis: StoreProcess
) -> None:
    house.fleet(sync={"grace": "1ms"})
    await redis.apply(house.policies)
    house.customer("acme", "acme_v4")
    await redis.apply(house.policies)
    house.boxes["b"].admin.fault("status", path=LOAD, status=500, message="bad shapes")
    code, said = await asyncio.to_thread(house.sync, redis=redis.url)
    assert code == 1
    assert "a: keep acme_v3: stays until acme_v4 answers, then to be unloaded" in said
    assert "a: acme_v3 unloaded (" in said
    assert house.has("a") == {"acme_v4"}
    assert house.has("b") == {"acme_v3"}
    house.boxes["b"].admin.heal()
    found = await asyncio.to_thread(house.facts, redis=redis.url)
    assert (found["ok"], found["policy_version"]) == (True, 2)
    assert house.has("b") == {"acme_v4"}


async def test_with_a_store_what_is_dropped_stays_for_its_grace(house: House, redis: StoreProcess) -> None:
    await redis.apply(house.policies)
    house.customer("acme", "acme_v4")
    await redis.apply(house.policies)
    code, said = await asyncio.to_thread(house.sync, redis=redis.url)
    assert code == 0
    assert "a: keep acme_v3" in said
    assert "2 to be unloaded later" in said
    assert house.has("a") == {"acme_v3", "acme_v4"}


async def test_a_watch_follows_the_store_until_it_is_told_to_stop(
    house: House, redis: StoreProcess, processes: Processes
) -> None:
    await redis.apply(house.policies)
    command = [
        sys.executable,
        "-m",
        "gateway.cli",
        "backend",
        "sync",
        "--watch",
        "--every",
        "30m",
        "--redis",
        redis.url,
    ]
    watch = processes.command(command, name="watch")
    await eventually(lambda: "2 boxes: 0 loaded" in watch.output, within_s=20)
    house.customer("acme", "acme_v3", "acme_v4")
    await redis.apply(house.policies)
    await eventually(lambda: "b: acme_v4 answers" in watch.output, within_s=20)
    watch.terminate()
    assert await watch.ended() == 0
    assert house.has("a") == house.has("b") == {"acme_v3", "acme_v4"}


def test_the_help_says_what_it_is_for() -> None:
    command = [sys.executable, "-m", "gateway.cli", "backend", "sync", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Load what policies name and boxes lack" in " ".join(said.split())
