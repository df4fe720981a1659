"""What got worse from one run to the next, and what is too little to be judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.loadtest.comparison import Threshold, compare, differing_runs
from gateway.cli.main import main
from tests.loadtest.made import report_of, sample


def run(ttft_s: float = 0.1, *, count: int = 300, failing: int = 0) -> Any:
    good = [sample(n / 100, ttft_s=ttft_s, took_s=ttft_s + 0.5) for n in range(count - failing)]
    return report_of(good + [sample(9.0, error="status 503", ttft_s=None)] * failing)


def verdicts(before: Any, after: Any, threshold: Threshold = Threshold()) -> dict[str, str]:  # noqa: B008
    found = compare(before, after, threshold, customers=False)
    return {one.name: one.verdict for one in found}


def test_a_slower_run_is_worse_and_a_faster_one_better() -> None:
    assert verdicts(run(), run(0.12))["ttft p50"] == "worse"
    assert verdicts(run(), run(0.105))["ttft p50"] == "same"
    assert verdicts(run(), run(0.05))["ttft p90"] == "better"
    assert verdicts(run(), run(0.12), Threshold(relative=0.3))["ttft p50"] == "same"


def test_shares_are_compared_in_points() -> None:
    found = verdicts(run(), run(failing=6))
    assert found["errors"] == "worse"
    assert found["in budget"] == "worse"
    assert verdicts(run(), run(failing=2))["errors"] == "same"
    assert verdicts(run(failing=6), run())["errors"] == "better"


def test_a_percentile_that_few_answers_stand_behind_is_not_judged() -> None:
    found = verdicts(run(count=60), run(0.5, count=60))
    assert found["ttft p50"] == "worse"
    assert found["ttft p99"] == "not judged"


def test_customers_are_compared_where_both_have_them() -> None:
    scopes = {one.scope for one in compare(run(), run(), Threshold())}
    assert scopes == {"overall", "acme"}


def test_runs_of_different_traffic_are_told_of() -> None:
    other = run()
    other["run"]["seed"] = 2
    assert "differ in seed" in differing_runs(run(), other)[0]
    assert differing_runs(run(), run()) == []


def test_what_differs_in_two_traffics_is_named_key_by_key() -> None:
    one, other, replay = run(), run(), run()
    one["run"] |= {"traffic": {"requests_per_minute": 600.0, "prompt_tokens": {"fixed": 256}, "seed": 1}, "trace": None}
    lengths = {"uniform": [100, 400]}
    other["run"] |= {"traffic": {"requests_per_minute": 900.0, "prompt_tokens": lengths, "seed": 1}, "trace": None}
    replay["run"] |= {"traffic": None, "trace": "peak.jsonl"}
    assert differing_runs(one, other) == [
        "the runs differ in traffic: requests_per_minute 600.0 and 900.0; prompt_tokens.fixed 256 and none; "
        "prompt_tokens.uniform none and [100, 400]"
    ]
    assert differing_runs(one, replay) == ["the runs differ in trace: none and peak.jsonl"]


def test_the_command_exits_with_1_where_it_got_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, document in (("a", run()), ("b", run(0.2))):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    for arguments, status in (([a, b], 1), ([a, a], 0), ([b, a], 0), ([a, b, "--threshold", "150"], 0), ([a, "no"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(["load", "compare", *arguments])
        assert (ended.value.code or 0) == status, arguments
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["load", "compare", a, b, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["worse"] > 0
    assert {"scope", "name", "before", "after", "change", "unit", "verdict"} == told["figures"][0].keys()
