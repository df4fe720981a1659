"""Rank mismatches, each by the name of the mistake in its export."""

from __future__ import annotations

import pytest

from tests.adapters.bench import Bench, peft_config, sliced, tensors


def test_a_configuration_with_less_rank_than_the_tensors_is_found(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(made=tensors(16), r=8, lora_alpha=32))
    assert (verdict.code, verdict.codes()) == (1, {"rank-mismatch-config"})
    said = verdict.finding("rank-mismatch-config")
    assert "says rank 8 and the tensors have 16" in said["message"]
    assert "32/8 = 4" in said["message"]
    assert len(said["where"]) == 14


def test_it_is_found_as_well_where_the_scaling_comes_out_right(bench: Bench) -> None:
    assert bench.check(bench.adapter(made=tensors(16), r=8, lora_alpha=16)).codes() == {"rank-mismatch-config"}


def test_tensors_that_were_cut_under_their_configuration_are_found(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(made=sliced(tensors(16), 8)))
    assert (verdict.code, verdict.codes()) == (1, {"rank-mismatch-tensors"})
    assert "have rank 8 and adapter_config.json says 16" in verdict.finding("rank-mismatch-tensors")["message"]


@pytest.mark.parametrize(("cut", "code"), [("B", "rank-mismatch-b"), ("A", "rank-mismatch-a")])
def test_one_half_that_was_cut_is_found(bench: Bench, cut: str, code: str) -> None:
    verdict = bench.check(bench.adapter(made=sliced(tensors(16), 8, cut)))
    assert (verdict.code, verdict.codes()) == (1, {code})


def test_a_single_module_that_was_cut_is_named(bench: Bench) -> None:
    made = tensors(16)
    cut = sliced(tensors(16), 8)
    wrong = [name for name in made if ".1.mlp.up_proj." in name]
    verdict = bench.check(bench.adapter(made=made | {name: cut[name] for name in wrong}))
    assert verdict.finding("rank-mismatch-tensors")["where"] == ["model.layers.1.mlp.up_proj"]


def test_a_rank_pattern_that_the_tensors_do_not_follow_is_found(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(rank_pattern={"down_proj": 4}))
    assert verdict.codes() == {"rank-mismatch-config"}
    assert len(verdict.finding("rank-mismatch-config")["where"]) == 2


def test_tensors_and_configuration_cut_alike_differ_from_the_training_record(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(made=sliced(tensors(16), 8), r=8, lora_alpha=16, record=peft_config(16)))
    assert verdict.codes() == {"rank-differs-from-record"}


@pytest.mark.parametrize("claimed", [32, 16])
def test_a_rank_above_the_fleets_is_refused(bench: Bench, claimed: int) -> None:
    folder = bench.adapter(made=tensors(32), r=claimed)
    verdict = bench.check(folder, options=["--max-lora-rank", "16"])
    assert verdict.code == 1
    assert "raise max_lora_rank to 32" in verdict.finding("rank-above-max")["remedy"]


def test_a_rank_pattern_above_the_fleets_is_refused(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(rank_pattern={"no_such": 64}), options=["--max-lora-rank", "16"])
    assert verdict.codes() == {"rank-above-max"}


def test_a_rank_that_no_box_can_be_started_for_is_refused(bench: Bench) -> None:
    assert "rank-above-max" in bench.check(bench.adapter(r=1024)).codes()


def test_a_rank_that_boxes_pad_is_mentioned(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(rank=12))
    assert (verdict.code, "rank-padded" in verdict.codes(severity="info")) == (0, True)


def test_much_padding_is_a_warning(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(rank=16), options=["--max-lora-rank", "64"])
    assert (verdict.code, verdict.codes(severity="warning")) == (0, {"padding"})
    assert "75% " in verdict.finding("padding")["message"]


def test_a_rank_of_its_own_is_a_warning(bench: Bench) -> None:
    folders = [bench.adapter(f"customer_{number}") for number in range(3)]
    verdict = bench.check(*folders, bench.adapter("odd", rank=8))
    assert (verdict.code, verdict.codes("odd", "warning")) == (0, {"rank-differs-from-fleet"})
    assert verdict.codes("customer_0", "warning") == set()


@pytest.mark.parametrize("rank", [0, -1, None, "16", 16.0, True, 10**30])
def test_a_rank_that_is_none_is_refused(bench: Bench, rank: object) -> None:
    verdict = bench.check(bench.adapter(r=rank))
    assert (verdict.code, verdict.codes()) == (1, {"config-invalid"})
