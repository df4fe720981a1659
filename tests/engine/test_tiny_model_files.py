"""The tiny model's files are made once, and are whole or made anew. Needs no engine: what makes them is a stand-in."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from backend.tiny_model import artefacts
from backend.tiny_model.artefacts import ADAPTER_NAMES, TinyModel, TinyModelError, ensure, inputs_digest, is_whole, make


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
    assert make(root, build)
    assert not make(root, build)
    assert build.calls == 1
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


@pytest.mark.parametrize("damage", ["cut short", "gone", "one too many", "no manifest"])
def test_a_damaged_copy_is_made_anew(root: Path, damage: str) -> None:
    build = Builder()
    make(root, build)
    match damage:
        case "cut short":
            (root / "base" / "model.safetensors").write_bytes(b"weig")
        case "gone":
            (root / "base" / "config.json").unlink()
        case "one too many":
            (root / "base" / "other.safetensors").write_bytes(b"")
        case "no manifest":
            (root / "manifest.json").write_bytes(b"{")
    assert not is_whole(root)
    assert make(root, build)
    assert is_whole(root)


def test_other_pins_of_the_engine_make_another_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = inputs_digest()
    make(root, Builder())
    pins = tmp_path / "engine.txt"
    pins.write_text("torch==99\n")
    monkeypatch.setattr(artefacts, "_PINS", pins)
    assert inputs_digest() != before
    assert not is_whole(root)


def test_a_build_that_fails_leaves_nothing_behind(root: Path) -> None:
    def build(scratch: Path) -> None:
        (scratch / "half").write_bytes(b"")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        make(root, build)
    assert list(root.parent.iterdir()) == []


def test_what_went_wrong_in_the_engines_python_is_told(root: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named torch >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(TinyModelError, match="no module named torch"):
        ensure(python, root)


def test_a_whole_copy_needs_no_engine(root: Path) -> None:
    make(root, Builder())
    model = ensure(Path("/no/such/python"), root)
    assert model == TinyModel(root)
    assert list(model.adapters) == list(ADAPTER_NAMES)
