"""`failsoft eval run` and `report`, from the command line against simulated boxes."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.evalgate.sets import Desk, case, cases, right, wrong
from tests.support.processes import Process


def test_paths_that_say_the_same_pass_and_the_power_of_few_prompts_is_told(desk: Desk) -> None:
    lines = cases(40, none=4)
    desk.customer("acme", lines)
    desk.customer("globex", lines)
    box = desk.box("box", map(right, lines))
    ended = desk.eval(*desk.arguments(f"{box.url}#{{customer}}_v3", f"{box.url}/v1#{{customer}}_v4"))
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    assert "passed: none of 2 customers loses more than 0.5 points" in ended.stdout
    assert "40 prompts cannot show a drop of 0.5 points; it takes 1568" in ended.stdout
    result = desk.result()
    assert [(one["customer"], one["drop_points"], one["p"]) for one in result["customers"]] == [
        ("acme", 0.0, 1.0),
        ("globex", 0.0, 1.0),
    ]
    scores = result["customers"][0]["candidate"]
    assert [scores[key] for key in ("right", "tool_name", "arguments", "both", "refusals", "invalid_json")] == [
        1, 1, 1, 1, 1, 0,
    ]  # fmt: skip
    asked = {entry["model"] for entry in box.admin.requests() if entry["path"] == "/v1/chat/completions"}
    assert asked == {"acme_v3", "acme_v4", "globex_v3", "globex_v4"}


def test_a_customer_that_loses_trips_the_gate_and_no_other_does(desk: Desk) -> None:
    lines = cases(40)
    desk.customer("acme", lines)
    desk.customer("globex", lines)
    worse = [{**wrong(line), "model": "globex"} for line in lines[:8]]
    one = desk.box("one", map(right, lines))
    other = desk.box("other", [*worse, *map(right, lines)])
    files = desk.folder / "made.xml", desk.folder / "made.html"
    options = "--junit", str(files[0]), "--html", str(files[1])
    ended = desk.eval(*desk.arguments(f"{one.url}#{{customer}}", f"{other.url}#{{customer}}", *options))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "tripped: 1 of 2 customers" in ended.stdout
    result = desk.result()
    assert [one["customer"] for one in result["tripped"]] == ["globex"]
    globex = result["customers"][1]
    assert (globex["drop_points"], globex["worse"], globex["better"], globex["p"]) == (20.0, 8, 0, 2 / 2**8)
    low, high = globex["interval_points"]
    assert 5 < low < 20 < high < 40
    assert {change["id"] for change in result["changes"]} == {f"p{n}" for n in range(8)}
    assert result["changes"][0]["candidate"]["differs"][0] == "tool: get_weather expected, get_stock called"
    (suite,) = ElementTree.parse(files[0]).getroot()
    failed = {test.get("name"): test.find("failure") is not None for test in suite.iter("testcase")}
    assert failed == {"acme": False, "globex": True}
    page = files[1].read_text()
    assert page == (desk.folder / "run" / "report.html").read_text()
    assert "trips for 1 customer" in page
    assert page.count("<svg") >= 3
    assert "://" not in page.replace(one.url, "").replace(other.url, "")
    assert "<script" not in page
    rows = dict(re.findall(r"<tr><th scope='row'>([^<]*)</th><td>(.*?)</td>", page))
    marks = {name: "✓" in cell or "✕" in cell for name, cell in rows.items()}
    assert marks == {"acme": True, "globex": True, "all customers": False}, "the gate judges customers"


@pytest.mark.parametrize("columns", [80, 50])
def test_a_narrow_log_shows_every_figure_whole(desk: Desk, columns: int) -> None:
    lines = cases(20)
    desk.customer("a-customer-with-a-name-of-some-length", lines)
    one, other = desk.box("one", map(right, lines)), desk.box("other", [wrong(lines[0]), *map(right, lines)])
    arguments = desk.arguments(f"{one.url}#m", f"{other.url}#m", "--gate", "off")
    ended = desk.eval(*arguments, env={"COLUMNS": str(columns)})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    table, _, _ = ended.stdout.partition("\npower:")
    assert "…" not in table
    assert max(map(len, table.splitlines())) <= columns
    assert {"20", "100.0", "95.0", "5.00", "1/0", "1", "name", "args", "no call", "bad JSON"} <= {
        cell for line in table.splitlines() for cell in re.split(r" {2,}", line.strip())
    } | set(table.split())
    assert "-0.0" not in table


def test_what_went_wrong_is_counted_apart(desk: Desk) -> None:
    lines = cases(20, none=4)
    desk.customer("acme", lines)
    replies = [
        wrong(lines[0], call={"name": "get_weather", "arguments": '{"city": '}),
        wrong(lines[1], content="Sorry."),
        wrong(lines[2], content='{"name": "get_weather", "parameters": {'),
        wrong(lines[3], call={"name": "get_weather", "arguments": {"city": "City 3", "days": 3.0, "unit": "celsius"}}),
        wrong(lines[19], call={"name": "get_stock", "arguments": {}}),
        *map(right, lines),
    ]
    one, other = desk.box("one", map(right, lines)), desk.box("other", replies)
    ended = desk.eval(*desk.arguments(f"{one.url}#m", f"{other.url}#m", "--gate", "off", "--json"))
    assert ended.returncode == 0
    scores = json.loads(ended.stdout)["customers"][0]["candidate"]
    assert scores["outcomes"] == {
        "right": 15, "wrong arguments": 1, "invalid JSON": 2, "no call": 1, "unwanted call": 1,
    }  # fmt: skip
    assert (scores["tool_name"], scores["arguments"], scores["both"], scores["refusals"]) == (14 / 16, 0.75, 0.75, 0.75)
    again = desk.eval("report", str(desk.folder / "run"), "--enum-case", "ignore", "--gate", "50", "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["customers"][0]["candidate"]["both"] == 13 / 16


def test_an_endpoint_that_dies_is_said_and_the_same_command_goes_on(desk: Desk) -> None:
    lines = cases(30)
    desk.customer("acme", lines)
    box = desk.box("box", map(right, lines))
    dying = desk.box("dying", map(right, lines))
    dying.admin.faults({"fault": "die", "contains": "prompt 12"})
    arguments = desk.arguments(f"{box.url}#m", f"{dying.url}#m", "--concurrency", "2")
    ended = desk.eval(*arguments)
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "the same command goes on" in ended.stderr
    kept = desk.answers()
    assert 0 < len(kept) < 60
    assert not (desk.folder / "run" / "result.json").exists()
    missing = desk.eval("report", str(desk.folder / "run"))
    assert (missing.returncode, f"{60 - len(kept)} answers are missing" in missing.stderr) == (3, True)
    assert desk.eval(*arguments).returncode == 3, "it is still down"
    dying.start()
    dying.wait_ready()
    asked = len(box.admin.requests())
    ended = desk.eval(*arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"going on: {len(kept)} answers" in ended.stderr
    assert len(desk.answers()) == 60
    # What was answered is not asked again: what the first box is asked now is what it had not been asked.
    chats = [entry for entry in box.admin.requests()[asked:] if entry["path"] == "/v1/chat/completions"]
    assert len(chats) == 30 - sum(one["path"] == "baseline" for one in kept)


def until_answers(desk: Desk, run: Process, count: int) -> None:
    file = desk.folder / "run" / "answers.jsonl"
    run.wait_ready(lambda: file.exists() and len(file.read_bytes().splitlines()) >= count)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_even_from_half_a_line(desk: Desk, number: signal.Signals) -> None:
    lines = cases(30)
    desk.customer("acme", lines)
    box = desk.box("box", map(right, lines))
    box.admin.fault("hang_before_headers", contains="prompt 7")
    arguments = desk.arguments(f"{box.url}#m", f"{box.url}#m", "--concurrency", "2")
    run = desk.begin(*arguments)
    until_answers(desk, run, 5)
    beside = desk.eval(*arguments)
    assert (beside.returncode, "in use by another run" in beside.stderr) == (2, True), beside.stderr
    run.child.send_signal(number)
    assert run.child.wait(20) == (130 if number is signal.SIGINT else -signal.SIGKILL), run.output
    file = desk.folder / "run" / "answers.jsonl"
    kept = len(desk.answers())
    assert 5 <= kept < 60
    with file.open("a") as answers:
        answers.write('{"path": "baseli')
    box.admin.heal()
    ended = desk.eval(*arguments)
    assert (ended.returncode, f"going on: {kept} answers" in ended.stderr) == (0, True), ended.stderr
    assert len(desk.answers()) == 60


@pytest.mark.parametrize("what", ["set", "endpoint", "sampling", "adapter"])
def test_a_run_of_something_else_is_not_gone_on_with(desk: Desk, what: str) -> None:
    lines = cases(4)
    desk.customer("acme", lines)
    box = desk.box("box", map(right, lines), adapters=["m", "n"])
    assert desk.eval(*desk.arguments(f"{box.url}#m", f"{box.url}#m")).returncode == 0
    arguments = desk.arguments(f"{box.url}#m", f"{box.url}#m")
    if what == "set":
        desk.customer("acme", [*lines, case(5)])
    elif what == "endpoint":
        arguments = desk.arguments(f"{box.url}#m", f"{box.url}#n")
    elif what == "sampling":
        arguments += ["--max-tokens", "7"]
    else:
        import httpx2

        load = {"lora_name": "m", "lora_path": "/elsewhere", "load_inplace": True}
        assert httpx2.post(f"{box.url}/v1/load_lora_adapter", json=load).status_code == 200
    ended = desk.eval(*arguments)
    assert ended.returncode == 2, ended.stdout
    assert "holds a run of something else" in ended.stderr
    assert {"set": "digest was", "endpoint": "candidate was", "sampling": "sampling was", "adapter": "served was"}[
        what
    ] in ended.stderr
    assert len(desk.answers()) == 8


def test_answers_that_fail_for_a_moment_are_asked_for_again(desk: Desk) -> None:
    lines = cases(10)
    desk.customer("acme", lines)
    box = desk.box("box", map(right, lines))
    faults: list[Any] = [
        {"fault": "status", "status": 503, "count": 2, "contains": "prompt 1"},
        {"fault": "truncate", "count": 1, "contains": "prompt 3"},
        {"fault": "abort", "count": 1, "contains": "prompt 5"},
        {"fault": "html_200", "count": 1, "contains": "prompt 7"},
    ]
    box.admin.faults(*faults)
    ended = desk.eval(*desk.arguments(f"{box.url}#m", f"{box.url}#m", "--concurrency", "1"))
    assert ended.returncode == 0, ended.stderr
    assert desk.result()["overall"]["candidate"]["right"] == 1.0
    assert all(rule["fired"] for rule in box.admin.rules())


def test_a_prompt_that_is_refused_is_an_answer_and_a_model_that_is_not_there_ends_the_run(desk: Desk) -> None:
    desk.customer("acme", cases(4))
    box = desk.box("box", map(right, cases(4)))
    box.admin.faults({"fault": "status", "status": 400, "contains": "prompt 2"})
    ended = desk.eval(*desk.arguments(f"{box.url}#m", f"{box.url}#m"))
    assert ended.returncode == 0
    assert desk.result()["overall"]["baseline"]["outcomes"] == {"right": 3, "error": 1}
    box.admin.faults({"fault": "adapter_missing"})
    began = time.monotonic()
    ended = desk.eval(*desk.arguments(f"{box.url}#m", f"{box.url}#m", out="other"))
    assert (ended.returncode, "answers 404" in ended.stderr) == (3, True)
    assert time.monotonic() - began < 40


def test_sampled_answers_are_judged_by_their_share(desk: Desk) -> None:
    lines = cases(12)
    desk.customer("acme", lines)
    # By seed, every fourth sample of the candidate is wrong.
    bad = {"call": wrong(lines[0])["call"]}
    spoilt = [{**right(line), "sampled": [{"call": line["expected"]}] * 2 + [bad]} for line in lines]
    one, other = desk.box("one", map(right, lines)), desk.box("other", spoilt)
    options = "--samples", "4", "--temperature", "0.7", "--stream"
    ended = desk.eval(*desk.arguments(f"{one.url}#m", f"{other.url}#m", *options))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    acme = desk.result()["customers"][0]
    assert (acme["drop_points"], acme["worse"], acme["candidate"]["right"]) == (25.0, 12, 0.75)
    assert acme["interval_points"] == [25.0, 25.0]
    assert desk.result()["changes"][0]["right"] == {"baseline": 4, "candidate": 3, "of": 4}


@pytest.mark.parametrize(
    ("judge", "trips"), [("measured", {"many", "one"}), ("significant", {"many"}), ("proven", {"many", "one", "even"})]
)
def test_how_a_drop_is_judged_can_be_chosen(desk: Desk, judge: str, trips: set[str]) -> None:
    lines = cases(40)
    spoilt: list[Any] = []
    for name, lost, won in (("many", 8, 0), ("one", 1, 0), ("even", 3, 3), ("none", 0, 0)):
        desk.customer(name, lines)
        spoilt += [{**wrong(line), "model": f"{name}_v4"} for line in lines[:lost]]
        spoilt += [{**wrong(line), "model": f"{name}_v3"} for line in lines[lost : lost + won]]
    box = desk.box("box", [*spoilt, *map(right, lines)])
    ended = desk.eval(
        *desk.arguments(f"{box.url}#{{customer}}_v3", f"{box.url}#{{customer}}_v4", "--judge", judge, "--json")
    )
    assert {one["customer"] for one in json.loads(ended.stdout)["tripped"]} == trips
    assert ended.returncode == 1


def test_single_customers_may_have_endpoints_and_keys_of_their_own(desk: Desk) -> None:
    lines = cases(3)
    desk.customer("acme", lines)
    desk.customer("globex", lines)
    closed = desk.box("closed", map(right, lines), api_key="for-acme")
    open_ = desk.box("open", map(right, lines))
    keys = {"FAILSOFT_EVAL_BASELINE_KEY_ACME": "for-acme", "FAILSOFT_EVAL_CANDIDATE_KEY": "other"}
    arguments = [*desk.arguments(f"{open_.url}#m", f"{open_.url}#m"), "--baseline", f"acme={closed.url}#merged"]
    ended = desk.eval(*arguments, env=keys)
    assert ended.returncode == 0, ended.stderr
    sent = {entry["headers"].get("authorization") for entry in open_.admin.requests()}
    assert sent == {None, "Bearer other"}
    assert "for-acme" not in (desk.folder / "run" / "run.json").read_text()
    ended = desk.eval(*desk.arguments(f"{closed.url}#m", f"{open_.url}#m", out="barred"))
    assert (ended.returncode, "401" in ended.stderr) == (3, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--baseline", "localhost:8000", "--candidate", "http://h#m"], "is no endpoint"),
        (["--baseline", "http://h", "--candidate", "http://h#m"], "name no model"),
        (["--baseline", "other=http://h#m", "--candidate", "http://h#m"], "no endpoint for acme"),
        (["--baseline", "http://u:p@h#m", "--candidate", "http://h#m"], "is no endpoint"),
        (["--baseline", "http://h#m", "--baseline", "http://i#m", "--candidate", "http://h#m"], "two endpoints"),
        (["--baseline", "http://h#m", "--candidate", "http://h#m", "--samples", "3"], "several samples"),
        (["--baseline", "http://h#m", "--candidate", "http://h#m", "--gate", "little"], "a number from 0 to 100"),
        (["--baseline", "http://h#m", "--candidate", "http://h#m", "--degraded"], "FAILSOFT_ADMIN_TOKEN"),
    ],
)
def test_misuse_is_said_before_anybody_is_asked(desk: Desk, options: list[str], said: str) -> None:
    file = desk.customer("acme", cases(2))
    ended = desk.eval("run", str(file), "--out", str(desk.folder / "run"), *options, env={"FAILSOFT_ADMIN_TOKEN": ""})
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert said in " ".join(ended.stderr.replace("│", " ").split())
    assert not (desk.folder / "run").exists()


def test_a_set_that_cannot_be_used_is_misuse_with_file_and_line(desk: Desk) -> None:
    file = desk.customer("acme", [case(1), {"messages": 1}])
    ended = desk.eval(
        "run", str(file), "--out", str(desk.folder / "x"), "--baseline", "http://h", "--candidate", "http://h"
    )
    assert (ended.returncode, f"{file}:2: `expected` is missing" in ended.stderr) == (2, True)


def test_nobody_there_is_an_exit_with_3_and_leaves_no_plan(desk: Desk) -> None:
    desk.customer("acme", cases(2))
    ended = desk.eval(*desk.arguments("http://127.0.0.1:9#m", "http://127.0.0.1:9#m"))
    assert (ended.returncode, "127.0.0.1:9" in ended.stderr) == (3, True)
    assert not (desk.folder / "run" / "run.json").exists()


def test_a_folder_without_a_run_has_no_report(desk: Desk, tmp_path: Path) -> None:
    ended = desk.eval("report", str(tmp_path))
    assert (ended.returncode, "holds no run" in ended.stderr) == (2, True)
