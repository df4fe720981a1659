"""`failsoft eval tune`: which system prompt serves a customer's degraded answers best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evalgate.sets import Desk, Line, cases, right, wrong


class Prompts:
    """Policies of two customers with one provider, and system prompts to try."""

    def __init__(self, desk: Desk, folder: Path, lines: list[Line]) -> None:
        self.desk = desk
        self.policies, self.prompts = folder / "policies", folder / "prompts"
        (self.policies / "customers").mkdir(parents=True)
        self.prompts.mkdir()
        desk.customer("acme", lines)
        desk.customer("homely", lines)
        # Without any prompt a quarter is right, with acme's own a half, with the good one all.
        some = [{**wrong(line), "system": "As Acme."} for line in lines[: len(lines) // 2]]
        good = [{**right(line), "system": "Think of tools."} for line in lines]
        own = [{**right(line), "system": "As Acme."} for line in lines]
        none = [wrong(line) for line in lines[: 3 * len(lines) // 4]]
        self.provider = desk.provider([*good, *some, *own, *none, *map(right, lines)])
        (self.prompts / "good.md").write_text("Think of tools.\n")
        (self.prompts / "idle.txt").write_text("Be nice.")
        self._write()

    def _write(self) -> None:
        def write(name: str, content: Any) -> None:
            (self.policies / name).write_text(json.dumps(content))

        hosted = {"model": "openai/mini", "api_base": f"{self.provider.url}/v1", "api_key": "${P_KEY}"}
        boxes = {"a": {"url": "http://127.0.0.1:9"}}
        write("fleet.yaml", {"fleets": {"main": {"base_model": "b", "boxes": boxes}}, "providers": {"hosted": hosted}})
        write("defaults.yaml", {"defaults": {"fallback": [{"provider": "hosted"}]}})
        for name, more in (
            ("acme", {"fallback": [{"provider": "hosted", "system_prompt": "As Acme.", "drop": ["seed"]}]}),
            ("homely", {"hosted": {"allowed": False}}),
        ):
            key = "sha256:" + name.encode().hex().ljust(64, "0")
            policy = {"customer": name, "api_keys": [key], "adapters": [f"{name}_v1"], **more}
            write(f"customers/{name}.yaml", policy)

    def arguments(self, *more: str) -> list[str]:
        sets, out = str(self.desk.sets), str(self.desk.folder / "tuned")
        return ["tune", sets, "--policies", str(self.policies), "--prompts", str(self.prompts), "--out", out, *more]

    def asked(self) -> list[Any]:
        return self.provider.admin.requests(path="/v1/chat/completions")


@pytest.fixture
def house(desk: Desk, tmp_path: Path) -> Prompts:
    return Prompts(desk, tmp_path, cases(24))


def test_the_best_prompt_is_found_beside_the_policys_own_and_nothing_leaves_a_house_that_keeps_it(
    house: Prompts,
) -> None:
    ended = house.desk.eval(*house.arguments(), env={"P_KEY": "k"})
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "homely is left out: its policy keeps every token on your own boxes" in ended.stderr
    assert "best: good, better than the policy's own beyond chance" in ended.stdout
    assert "-0.0" not in ended.stdout
    found = json.loads((house.desk.folder / "tuned" / "tune.json").read_text())
    (acme,) = found["customers"]
    assert [(one["prompt"], one["right"], one["gained_points"]) for one in acme["prompts"]] == [
        ("good", 1.0, 50.0),
        ("policy", 0.5, None),
        ("idle", 0.25, -25.0),
        ("none", 0.25, -25.0),
    ]
    low, high = acme["prompts"][0]["gained_interval_points"]
    assert 25 < low < 50 < high < 75
    assert (acme["proven"], list(found["left_out"])) == (True, ["homely"])
    bodies = [entry["body"] for entry in house.asked()]
    assert len(bodies) == 24 * 4
    assert {body["model"] for body in bodies} == {"mini"}
    assert not any("seed" in body for body in bodies), "as the policy drops it"


def test_a_tuning_goes_on_and_one_of_another_prompt_does_not(house: Prompts) -> None:
    house.provider.admin.fault("status", status=401, contains="prompt 9")
    arguments = house.arguments("--json", "--concurrency", "1")
    ended = house.desk.eval(*arguments, env={"P_KEY": "k"})
    assert (ended.returncode, "the same command goes on" in ended.stderr) == (3, True), ended.stderr
    kept = len(house.desk.answers("tuned"))
    house.provider.admin.heal()
    house.provider.admin.forget()
    ended = house.desk.eval(*arguments, env={"P_KEY": "k"})
    assert ended.returncode == 1, ended.stderr
    assert f"going on: {kept} answers" in ended.stderr
    assert json.loads(ended.stdout)["customers"][0]["best"] == "good"
    assert len(house.asked()) == 96 - kept
    (house.prompts / "good.md").write_text("Another.")
    ended = house.desk.eval(*arguments, env={"P_KEY": "k"})
    assert (ended.returncode, "prompts was" in ended.stderr) == (2, True)


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_asked(house: Prompts, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "tuned"
    ended = house.desk.eval(*house.arguments("--out", str(out)), env={"P_KEY": "k"})
    assert (ended.returncode, str(out) in ended.stderr, "Traceback" in ended.stderr) == (2, True, False), ended.stderr
    assert house.asked() == []


def test_where_nobody_may_be_sent_nothing_is(house: Prompts, desk: Desk) -> None:
    (desk.sets / "acme.jsonl").unlink()
    ended = desk.eval(*house.arguments(), env={"P_KEY": "k"})
    assert (ended.returncode, "nothing is to be asked" in ended.stderr) == (2, True)
    assert house.asked() == []


def test_a_provider_without_its_key_is_said(house: Prompts, desk: Desk) -> None:
    ended = desk.eval(*house.arguments(), env={"P_KEY": ""})
    assert ended.returncode in (2, 3)
    assert "P_KEY" in ended.stderr
    assert house.asked() == []
