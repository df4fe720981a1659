"""What lies in an adapter's folder and must not be read, or is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.adapters.bench import Bench, tensors, write_safetensors

PICKLE = b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00cos\n."


def replaced_by_link(file: Path, target: Path) -> None:
    file.rename(target)
    file.symlink_to(target)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "extra.pkl", "sub/weights.pth"])
def test_a_pickle_beside_the_weights_is_refused(bench: Bench, name: str) -> None:
    folder = bench.adapter()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(PICKLE)
    verdict = bench.check(folder)
    assert (verdict.code, verdict.codes(), verdict.finding("pickle")["where"]) == (1, {"pickle"}, [name])


def test_a_pickle_in_place_of_the_weights_is_refused(bench: Bench) -> None:
    folder = bench.adapter()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    verdict = bench.check(folder)
    assert (verdict.code, verdict.codes()) == (1, {"pickle"})
    assert "safe_serialization" in verdict.finding("pickle")["remedy"]


@pytest.mark.parametrize("start", [PICKLE, b"PK\x03\x04archive"])
def test_a_pickle_by_another_name_is_refused(bench: Bench, start: bytes) -> None:
    folder = bench.adapter()
    (folder / "adapter_model.safetensors").write_bytes(start + bytes(100))
    assert bench.check(folder).codes() == {"pickle"}


def test_what_a_trainer_leaves_behind_is_a_warning(bench: Bench) -> None:
    folder = bench.adapter()
    (folder / "training_args.bin").write_bytes(PICKLE)
    verdict = bench.check(folder)
    assert (verdict.code, verdict.codes(severity="warning")) == (0, {"trainer-leftovers"})


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_link_out_of_the_folder_is_refused_and_not_followed(bench: Bench, name: str) -> None:
    folder = bench.adapter()
    replaced_by_link(folder / name, bench.folder / "elsewhere")
    verdict = bench.check(folder)
    assert (verdict.code, verdict.codes(), verdict.finding("path-traversal")["where"]) == (
        1,
        {"path-traversal"},
        [name],
    )


def test_any_link_out_of_the_folder_is_refused(bench: Bench) -> None:
    folder = bench.adapter()
    (folder / "notes").symlink_to("../../../../etc")
    assert bench.check(folder).codes() == {"path-traversal"}


def test_a_link_that_leads_round_in_a_circle_is_refused(bench: Bench) -> None:
    folder = bench.adapter()
    (folder / "tokenizer.json").symlink_to("tokenizer.json")
    assert bench.check(folder).codes() == {"path-traversal"}


def test_links_within_the_root_are_followed(bench: Bench) -> None:
    folder = bench.adapter()
    replaced_by_link(folder / "adapter_model.safetensors", bench.folder / "blob")
    assert bench.check(folder, options=["--root", str(bench.folder)]).code == 0


def test_a_folder_outside_of_the_root_is_refused(bench: Bench) -> None:
    folder = bench.adapter()
    inside = folder.parent / "inside"
    inside.mkdir()
    (inside / "way_out").symlink_to(folder)
    for named in (folder, inside / "way_out", inside / ".." / "acme_v3"):
        verdict = bench.check(named, options=["--root", str(inside)])
        assert (verdict.code, verdict.codes()) == (1, {"path-traversal"})


def test_a_link_to_the_folder_itself_is_how_versions_are_switched(bench: Bench) -> None:
    folder = bench.adapter()
    (folder.parent / "current").symlink_to("acme_v3")
    verdict = bench.check(folder.parent / "current")
    assert verdict.code == 0
    assert [adapter["name"] for adapter in verdict.facts["adapters"]] == ["current"], "as it was given"


def test_a_table_names_folders_as_they_were_given(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.adapter(lora_alpha=0)
    (folder.parent / "current").symlink_to("acme_v3")
    said = bench.run([folder.parent / "current"])[1]
    assert "current: error: alpha-not-positive" in said
    assert "acme_v3" not in said
    monkeypatch.chdir(folder)
    assert "acme_v3: error: alpha-not-positive" in bench.run([Path()])[1]


@pytest.mark.parametrize("path", ["../../{base}", "../{base}/", "..\\{base}", "models/../{base}"])
def test_a_base_by_a_relative_path_is_known_by_its_last_part_as_it_is_never_opened(bench: Bench, path: str) -> None:
    folder = bench.adapter(base_model_name_or_path=path.format(base=bench.base.name))
    verdict = bench.check(folder, options=["--strict"])
    assert (verdict.code, verdict.codes()) == (0, set())


@pytest.mark.parametrize("path", ["../../secrets", "..", "models\\..\\..\\x"])
def test_another_base_by_a_relative_path_is_another_base(bench: Bench, path: str) -> None:
    assert bench.check(bench.adapter(base_model_name_or_path=path)).codes() == {"base-name-mismatch"}


def test_any_path_of_the_configuration_that_climbs_out_is_refused(bench: Bench) -> None:
    verdict = bench.check(bench.adapter(auto_mapping={"parent_library": ["ok", "a/../../b"]}))
    assert verdict.codes() == {"path-traversal"}
    assert "parent_library" in verdict.finding("path-traversal")["message"]


def test_dots_in_a_regular_expression_are_no_path(bench: Bench) -> None:
    assert bench.check(bench.adapter(target_modules=r"model\..*\.\w+_proj")).code == 0


def test_a_folder_without_a_configuration_is_refused_with_a_hint(bench: Bench) -> None:
    folder = bench.adapter()
    verdict = bench.check(folder.parent)
    assert verdict.codes() == {"config-missing", "weights-missing"}
    assert "such as acme_v3" in verdict.finding("config-missing")["remedy"]


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "null", "[" * 100_000, "\ufeff{", "\x00"])
def test_a_configuration_that_is_none_is_refused(bench: Bench, content: str) -> None:
    folder = bench.adapter()
    (folder / "adapter_config.json").write_text(content)
    verdict = bench.check(folder)
    assert verdict.code == 1
    assert verdict.codes() & {"unreadable", "config-invalid"}


def test_a_pipe_in_place_of_a_file_does_not_hang_it(bench: Bench) -> None:
    folder = bench.adapter()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    assert bench.check(folder).codes() == {"config-missing", "weights-missing"}


@pytest.mark.parametrize("left", [0, 4, 8, 200, -1])
def test_a_file_that_was_cut_short_is_refused(bench: Bench, left: int) -> None:
    folder = bench.adapter()
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    assert bench.check(folder).codes() == {"weights-unreadable"}


def test_an_absurd_header_is_refused_without_being_read(bench: Bench) -> None:
    folder = bench.adapter()
    (folder / "adapter_model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    assert bench.check(folder).codes() == {"weights-unreadable"}


def test_names_out_of_the_file_cannot_move_the_cursor(bench: Bench) -> None:
    made = tensors() | {"evil\x1b[2J\n.weight": next(iter(tensors().values()))}
    folder = bench.adapter(base_model_name_or_path="example/\x1b]0;owned\x07")
    write_safetensors(folder / "adapter_model.safetensors", made)
    code, out, err = bench.run([folder])
    assert code == 1
    assert "\x1b" not in out + err
    assert r"evil\x1b[2J\n.weight" in out
