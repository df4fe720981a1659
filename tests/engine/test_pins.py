"""The engine's environment is pinned to the file's hash, and names no place to get it from."""

from __future__ import annotations

import re
from pathlib import Path

BACKEND = Path(__file__).parent.parent.parent / "backend"
PINS = (BACKEND / "engine.txt").read_text()


def test_every_package_is_pinned_with_hashes_and_no_host_is_named() -> None:
    assert "://" not in PINS
    for entry in re.split(r"\n(?=\S)", PINS.strip()):
        assert re.match(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==\S+", entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_what_cannot_stand_beside_the_cpu_build_is_left_out() -> None:
    makefile = (BACKEND / "engine.mk").read_text()
    left_out = re.search(r"^ENGINE_LEFT_OUT := (.+)$", makefile, re.M)
    assert left_out is not None
    pinned = set(re.findall(r"^([a-z0-9._-]+)", PINS, re.M))
    assert {"torchvision", "torchaudio", "torchcodec"} <= set(left_out[1].split())
    assert not pinned & set(left_out[1].split())
