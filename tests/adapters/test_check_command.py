"""`failsoft backend check` as people and CI use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.bench import Bench, sliced, tensors

ROOT = Path(__file__).parent.parent.parent


def test_people_see_a_table_and_a_sentence_for_everything_that_is_wrong(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    folders = [bench.adapter("sound"), bench.adapter("cut", made=sliced(tensors(16), 8))]
    code, out, err = bench.run(folders, "--max-lora-rank", "16")
    lines = out.splitlines()
    assert (code, err) == (1, "")
    assert any("sound" in line and "fine" in line for line in lines)
    assert any("cut" in line and "rank-mismatch-tensors" in line and "│" in line for line in lines)
    (said,) = [line for line in lines if line.startswith("cut: error: rank-mismatch-tensors: ")]
    assert "were cut after training" in said
    assert lines[-1] == "2 adapters, 1 wrong, 0 with warnings"


def test_the_codes_are_whole_on_a_narrow_terminal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "customer_with_a_long_name_v3"
    _, out, _ = bench.run([bench.adapter(name, made=sliced(tensors(16), 8))])
    assert "…" not in out
    assert f"{name}: error: rank-mismatch-tensors: " in out


def test_people_who_have_to_wait_see_how_far_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.backend_check._LONG_BYTES", 1)
    folder = bench.adapter()
    assert bench.run([folder])[2] == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # for a terminal
    assert "reading adapters" in bench.run([folder])[2]
    assert bench.run([folder], "--json")[2] == ""


def test_adapters_of_one_name_are_told_apart_by_their_paths(bench: Bench) -> None:
    _, out, _ = bench.run([bench.adapter("a/v1", lora_alpha=0), bench.adapter("b/v1")])
    assert f"{bench.folder / 'adapters' / 'a' / 'v1'}: error: alpha-not-positive" in out


def test_a_folder_that_is_named_twice_is_checked_once(bench: Bench) -> None:
    folder = bench.adapter()
    assert len(bench.check(folder, folder / ".").facts["adapters"]) == 1


def test_warnings_are_errors_where_they_are_said_to_be(bench: Bench) -> None:
    folder, base = bench.adapter(), bench.a_base(dtype="bfloat16")
    assert bench.check(folder, base=base).code == 0
    strict = bench.check(folder, base=base, options=["--strict"])
    assert (strict.code, strict.facts["ok"], strict.adapter("acme_v3")["ok"]) == (1, False, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["{adapter}"],
        ["--base", "{base}"],
        ["{adapter}/none", "--base", "{base}"],
        ["{adapter}", "--base", "{base}", "--max-lora-rank", "12"],
        ["{adapter}", "--base", "{base}", "--fleet", "main"],
        ["{adapter}", "--base", "{base}", "--policies", "{policies}", "--fleet", "other"],
    ],
)
def test_misuse_exits_with_2(bench: Bench, arguments: list[str]) -> None:
    known = {"adapter": bench.adapter(), "base": bench.base, "policies": bench.policies()}
    code, out, err = bench.command("backend", "check", *(argument.format(**known) for argument in arguments))
    assert (code, out) == (2, "")
    assert "Error" in err or "Usage" in err


def test_a_base_that_cannot_be_had_exits_with_3(bench: Bench) -> None:
    folder = bench.adapter()
    empty = bench.folder / "empty"
    empty.mkdir()
    for base in (empty, bench.folder / "none"):
        code, out, err = bench.run([folder], "--json", base=base)
        assert (code, out) == (3, "")
        assert "--base has to be the folder" in err
    (empty / "config.json").write_text("[1]")
    assert bench.run([folder], base=empty)[0] == 3
    (empty / "config.json").write_text("{")
    assert bench.run([folder], base=empty)[0] == 3


def test_policies_that_do_not_hold_together_exit_with_3(bench: Bench) -> None:
    policies = bench.policies(max_lora_rank=17)
    code, _, err = bench.run([bench.adapter()], "--policies", str(policies))
    assert (code, "failsoft policies validate" in err) == (3, True)


@pytest.mark.parametrize("package", ["numpy", "safetensors"])
def test_without_the_optional_packages_it_says_how_to_get_them(bench: Bench, package: str) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; from gateway.cli.main import main; main(sys.argv[1:])"
    arguments = ["backend", "check", str(bench.adapter()), "--base", str(bench.base)]
    command = [sys.executable, "-c", script, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "pip install 'failsoft[backend]'" in ended.stderr


def test_the_json_is_whole(bench: Bench) -> None:
    _, out, _ = bench.run([bench.adapter()], "--json", "--max-lora-rank", "16")
    facts = json.loads(out)
    assert facts.keys() == {"ok", "base", "max_lora_rank", "adapters"}
    assert facts["adapters"][0].keys() >= {"name", "path", "ok", "rank", "scaling", "dtypes", "size_bytes", "findings"}
    assert facts["adapters"][0]["findings"][0].keys() == {"code", "severity", "message", "remedy", "where"}


def test_checking_loads_neither_torch_nor_the_gateway(bench: Bench) -> None:
    script = """
import sys
from gateway.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code
heavy = {"torch", "transformers", "litellm", "redis", "gateway.app"} & set(sys.modules)
assert not heavy, heavy
"""
    arguments = ["backend", "check", str(bench.adapter()), "--base", str(bench.base)]
    command = [sys.executable, "-c", script, *arguments]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=30)


def test_of_many_adapters_with_the_same_weights_only_the_first_few_are_named(bench: Bench) -> None:
    made = tensors(16)
    verdict = bench.check(*(bench.adapter(f"customer_{number}", made=made) for number in range(9)))
    (last,) = [one for one in verdict.findings("customer_8") if one["code"] == "weights-shared"]
    assert last["message"].count("customer_") == 3
    assert "customer_0" in last["message"]
    assert last["message"].endswith(" and 5 more, bit for bit")
