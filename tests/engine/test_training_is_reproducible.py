"""The same seed gives the same files, bit for bit: a base and an adapter of a few steps, trained in two processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from backend.made_once import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TRAIN = """
import sys
from pathlib import Path
from backend.tiny_agents import base, build, tuning
from backend.tiny_agents.houses import HOUSES
build.be_reproducible()
out = Path(sys.argv[1])
tokenizer = build.build_tokenizer()
model = base.train_base(tokenizer, base.Recipe(steps=12, copy_steps=4), lambda step, loss: None)
tokenizer.save_pretrained(out / "base")
model.save_pretrained(out / "base")
tuning.train_adapter(model, tokenizer, HOUSES[0], out / "adapter", tuning.Recipe(steps=6), lambda step, loss: None)
"""


def test_the_same_seed_gives_the_same_files(engine_python: Path, tmp_path: Path) -> None:
    digests = []
    for hash_seed in ("1", "2"):  # in which Python orders sets: no file may depend on it
        out = tmp_path / hash_seed
        trained = subprocess.run(
            [str(engine_python), "-c", TRAIN, str(out)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert trained.returncode == 0, trained.stderr
        files = sorted(path for path in out.rglob("*") if path.is_file())
        digests.append([(path.relative_to(out), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files])
    assert {path.name for path, _ in digests[0]} >= {"model.safetensors", "adapter_model.safetensors", "tokenizer.json"}
    assert digests[0] == digests[1]
