"""lora_alpha over r: held against the training record, and against the other adapters of the fleet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.adapters.bench import Bench, peft_config


@pytest.mark.parametrize(
    "wrong", [{"lora_alpha": 1}, {"lora_alpha": 16}, {"lora_alpha": 48}, {"lora_alpha": 64}, {"use_rslora": True}]
)
def test_a_scaling_that_training_had_not_is_found(bench: Bench, wrong: dict[str, Any]) -> None:
    verdict = bench.check(bench.adapter(record=peft_config(), **wrong))
    assert (verdict.code, verdict.codes()) == (1, {"scaling-differs-from-record"})
    assert "32/16 = 2" in verdict.finding("scaling-differs-from-record")["message"]


def test_a_scaling_that_only_one_module_has_from_a_pattern_is_found(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(record=peft_config(), alpha_pattern={"layers.1.mlp.up_proj": 8}))
    assert verdict.finding("scaling-differs-from-record")["where"] == ["model.layers.1.mlp.up_proj"]


@pytest.mark.parametrize("wrong", [{"lora_alpha": 16}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 64}}])
def test_a_scaling_that_the_rest_of_the_fleet_has_not_is_found(bench: Bench, wrong: dict[str, Any]) -> None:
    folders = [bench.adapter(f"customer_{number}") for number in range(3)]
    verdict = bench.check(*folders, bench.adapter("odd", **wrong))
    assert (verdict.code, verdict.codes()) == (1, {"scaling-differs-from-fleet"})
    assert verdict.codes("odd") == {"scaling-differs-from-fleet"}


def test_a_scaling_of_its_own_that_its_record_confirms_is_meant(bench: Bench) -> None:
    folders = [bench.adapter(f"customer_{number}") for number in range(3)]
    odd = bench.adapter("odd", lora_alpha=16, record=peft_config(lora_alpha=16))
    verdict = bench.check(*folders, odd)
    assert (verdict.code, verdict.codes("odd", "info")) == (0, {"scaling-differs-from-fleet"})


def test_where_two_disagree_both_have_to_show_that_they_are_right(bench: Bench) -> None:
    one, two = bench.adapter("one"), bench.adapter("two", lora_alpha=16)
    verdict = bench.check(one, two)
    assert (verdict.code, verdict.codes("one"), verdict.codes("two")) == (1, {"scaling-mixed"}, {"scaling-mixed"})
    for folder in (one, two):
        (folder / "training_record.json").write_text((folder / "adapter_config.json").read_text())
    assert bench.check(one, two).code == 0


HELD_AGAINST_NOTHING = (
    "scaling was held against nothing: give --scaling, a training record, or the fleet's other adapters"
)


@pytest.mark.parametrize("doubled", [{}, {"lora_alpha": 64}, {"use_rslora": True}])
def test_people_are_told_that_one_adapter_alone_had_its_scaling_held_against_nothing(
    bench: Bench, doubled: dict[str, Any]
) -> None:
    folder = bench.adapter("alone", **doubled)
    code, out, _ = bench.run([folder], "--max-lora-rank", "16")
    assert (code, out.splitlines()[-1]) == (0, f"1 adapter, 0 wrong, 0 with warnings; {HELD_AGAINST_NOTHING}")
    broken = bench.folder / "adapters" / "broken"
    broken.mkdir()
    assert HELD_AGAINST_NOTHING in bench.run([folder, broken])[1], "one that cannot be read says nothing either"


def test_nothing_of_the_kind_is_said_where_there_was_something(bench: Bench) -> None:
    alone = bench.adapter("alone")
    assert HELD_AGAINST_NOTHING not in bench.run([alone], "--scaling", "2")[1]
    assert HELD_AGAINST_NOTHING not in bench.run([alone, bench.adapter("other")])[1]
    assert HELD_AGAINST_NOTHING not in bench.run([bench.adapter("recorded", record=peft_config())])[1]


def test_the_command_may_say_what_is_right(bench: Bench) -> None:
    folders = [bench.adapter("one"), bench.adapter("two", lora_alpha=16)]
    verdict = bench.check(*folders, options=["--scaling", "1"])
    assert (verdict.codes("one"), verdict.codes("two")) == ({"scaling-unexpected"}, set())
    assert bench.check(folders[0], options=["--scaling", "2"]).code == 0


@pytest.mark.parametrize("alpha", [0, -32])
def test_no_alpha_is_found_without_anything_to_compare(bench: Bench, alpha: int) -> None:
    verdict = bench.check(bench.adapter(lora_alpha=alpha))
    assert (verdict.code, verdict.codes()) == (1, {"alpha-not-positive"})


def test_no_alpha_for_one_module_is_found(bench: Bench) -> None:
    assert "alpha-not-positive" in bench.check(bench.adapter(alpha_pattern={"v_proj": 0})).codes()


def test_an_alpha_near_nothing_is_a_warning_by_itself(bench: Bench) -> None:
    assert bench.check(bench.adapter(lora_alpha=1)).codes(severity="warning") == {"scaling-unusual"}


@pytest.mark.parametrize("alpha", [None, "32", True, [], 1e300])
def test_an_alpha_that_is_no_number_is_refused(bench: Bench, alpha: object) -> None:
    verdict = bench.check(bench.adapter(lora_alpha=alpha))
    assert (verdict.code, verdict.codes()) == (1, {"config-invalid"})


def test_nan_as_alpha_is_refused(bench: Bench) -> None:
    assert bench.check(bench.adapter(lora_alpha=float("nan"))).codes() == {"config-invalid"}


@pytest.mark.parametrize("pattern", [{"(a+)+": 2}, {"(": 2}, {".*.*.*.*q_proj": 2}, {"q_proj": "2"}, ["q_proj"]])
def test_a_pattern_that_cannot_be_followed_is_refused_at_once(bench: Bench, pattern: object) -> None:
    assert bench.check(bench.adapter(alpha_pattern=pattern)).codes() == {"config-invalid"}


def test_a_record_that_cannot_be_read_is_not_passed_over(bench: Bench) -> None:
    folder = bench.adapter(record={"lora_alpha": 32})
    assert "training_record.json lacks r" in bench.check(folder).finding("config-invalid")["message"]
    (folder / "training_record.json").write_text("{")
    assert bench.check(folder).codes() == {"unreadable"}


def test_modules_that_training_did_not_have_are_found(bench: Bench) -> None:
    record = peft_config(target_modules=["q_proj", "v_proj"])
    assert bench.check(bench.adapter(record=record)).codes() == {"targets-differ-from-record"}


def test_a_base_that_training_did_not_have_is_found(bench: Bench) -> None:
    record = peft_config(base_model_name_or_path="example/Another-Llama")
    assert bench.check(bench.adapter(record=record)).codes() == {"base-differs-from-record"}
