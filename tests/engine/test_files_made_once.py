"""What the engine tests serve is made once, and is whole or made anew. Needs no engine: what makes it is a stand-in."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from backend.made_once import MakingFailed, inputs_digest, is_whole, make
from backend.tiny_agents import artefacts as agents
from backend.tiny_model import artefacts as model

INPUTS = "0123456789abcdef"


class Builder:
    """Writes two files, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, root: Path) -> None:
        self.calls += 1
        (root / "base").mkdir()
        (root / "base" / "model.safetensors").write_bytes(b"weights")
        (root / "base" / "config.json").write_bytes(b"{}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "model"


def test_the_files_are_made_once(root: Path) -> None:
    build = Builder()
    assert make(root, INPUTS, build)
    assert not make(root, INPUTS, build)
    assert build.calls == 1
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


@pytest.mark.parametrize("damage", ["cut short", "gone", "one too many", "no manifest"])
def test_a_damaged_copy_is_made_anew(root: Path, damage: str) -> None:
    build = Builder()
    make(root, INPUTS, build)
    match damage:
        case "cut short":
            (root / "base" / "model.safetensors").write_bytes(b"weig")
        case "gone":
            (root / "base" / "config.json").unlink()
        case "one too many":
            (root / "base" / "other.safetensors").write_bytes(b"")
        case "no manifest":
            (root / "manifest.json").write_bytes(b"{")
    assert not is_whole(root, INPUTS)
    assert make(root, INPUTS, build)
    assert is_whole(root, INPUTS)


def test_other_code_or_pins_make_other_files(root: Path, tmp_path: Path) -> None:
    pins = tmp_path / "engine.txt"
    pins.write_text("torch==2\n")
    before = inputs_digest([pins])
    make(root, before, Builder())
    pins.write_text("torch==99\n")
    assert inputs_digest([pins]) != before
    assert is_whole(root, before)
    assert not is_whole(root, inputs_digest([pins]))


def test_a_build_that_fails_leaves_nothing_behind(root: Path) -> None:
    def build(scratch: Path) -> None:
        (scratch / "half").write_bytes(b"")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        make(root, INPUTS, build)
    assert list(root.parent.iterdir()) == []


@pytest.mark.parametrize("ensure", [agents.ensure, model.ensure], ids=["agents", "model"])
def test_what_the_engines_python_says_is_passed_on_and_told_when_it_fails(
    ensure: object, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert callable(ensure)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named torch >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(MakingFailed, match="no module named torch"):
        ensure(python, root)
    assert "no module named torch" in capfd.readouterr().err


def test_a_whole_copy_needs_no_engine(root: Path) -> None:
    make(root, model.inputs(), Builder())
    found = model.ensure(Path("/no/such/python"), root)
    assert found == model.TinyModel(root)
    assert list(found.adapters) == list(model.ADAPTER_NAMES)


def test_every_adapter_of_the_untrained_model_has_a_trained_twin_of_its_name() -> None:
    assert set(model.ADAPTER_NAMES) <= set(agents.ADAPTER_NAMES)
    assert len(agents.ADAPTER_NAMES) >= 8
