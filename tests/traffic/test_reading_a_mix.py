"""A traffic file says what it means, or what is wrong with it and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.traffic.read import TrafficError, mix_from, read_mix

WHOLE = """\
requests_per_minute: 900
duration: 2m
warm_up: 0s
customers:
  acme: 5.0
  globex: {weight: 1, model: customer_globex_v1}
prompt_tokens: {lognormal: {median: 400, p90: 900}}
output_tokens: {uniform: [100, 400]}
stream: 0.8
bursts:
  - {at: 20s, for: 5s, times: 5, adapters: 12}
seed: 7
"""


def test_every_key_can_be_written() -> None:
    mix = mix_from(WHOLE, "traffic.yaml")
    assert (mix.requests_per_minute, mix.duration, mix.warm_up, mix.length_s) == (900, 120, 0, 120)
    assert mix.customers is not None
    assert mix.customers["acme"].weight == 5
    assert mix.customers["globex"].model == "customer_globex_v1"
    assert mix.prompt_tokens.lognormal is not None
    assert mix.prompt_tokens.lognormal.longest == 3600
    assert mix.output_tokens.mean == 250
    assert (mix.bursts[0].at, mix.bursts[0].for_, mix.bursts[0].adapters) == (20, 5, 12)


def test_every_key_has_a_default() -> None:
    mix = mix_from("", "traffic.yaml")
    assert (mix.requests_per_minute, mix.duration, mix.warm_up, mix.stream, mix.seed) == (600, 60, 10, 1, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("request_per_minute: 5\n", "t.yaml:1:1: error: request_per_minute: unknown key"),
        ("request_per_minute: 5\n", "did you mean requests_per_minute?"),
        ("bursts: [{at: 1s, forr: 5s, times: 2}]\n", "bursts[0].forr: unknown key (did you mean for?)"),
        ("bursts: [{at: 1s, times: 2}]\n", "bursts[0].for: is missing"),
        ("prompt_tokens: {fixed: 1, uniform: [1, 2]}\n", "prompt_tokens: needs exactly one of fixed"),
        ("prompt_tokens: {uniform: [9, 2]}\n", "ends before it begins"),
        ("prompt_tokens: {lognormal: {median: 9, p90: 2}}\n", "prompt_tokens.lognormal: has a p90 below its median"),
        ("zipf: 1.0\ncustomers: {acme: 1}\n", "has both customers and zipf"),
        ("seed: 1\nduration: 60\n", "t.yaml:2:1: error: duration: is not a duration"),
        ("- 1\n", "is not a mapping"),
        ("customers: {acme: 0}\n", "customers.acme.weight"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(TrafficError) as caught:
        mix_from(text, "t.yaml")
    assert said in str(caught.value)


def test_a_file_that_is_no_yaml_or_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("a: [")
    for path in (tmp_path / "t.yaml", tmp_path / "none.yaml"):
        with pytest.raises(TrafficError, match=path.name):
            read_mix(path)


def test_the_example_in_the_docs_is_valid() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "evidence.md").read_text()
    example = page.partition("```yaml\n# traffic.yaml")[2].partition("```")[0]
    assert mix_from("#" + example, "docs/evidence.md").bursts[0].adapters == 12
