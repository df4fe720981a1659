"""`python -m bench.gpu` with real vLLM on a CPU: every figure of its table is there. What they are is not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backend.launch import ENGINE_PYTHON
from bench.gpu.settings import SECTIONS
from bench.servers import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

BY_THE_GPU_ALONE = "model as loaded, with its slots, by vLLM"
"""A CPU build does not say it."""


def test_the_whole_table_is_measured_with_real_vllm(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench.gpu", "--shape", "tiny", "--folder", str(tmp_path), "--json", str(file)]
    command += ["--python", str(ENGINE_PYTHON), "--adapters", "6", "--requests-per-minute", "60", "--seconds", "15"]
    command += ["--warm-up", "2", "--singles", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(file.read_text())
    assert set(document["sections"]) == set(SECTIONS)
    missing = {row[0] for row in document["rows"] if row[-1] == "–"}
    assert missing <= {BY_THE_GPU_ALONE}, done.stdout
    for name in ("load", "base"):
        overall = document["sections"][name]["report"]["overall"]
        assert overall["requests"] == overall["answered"] > 0
        assert overall["degraded"] == 0
        assert overall["mean_output_tokens"] == 32
    assert document["sections"]["gateway"]["first"]["count"] == 10
    assert all(row[0] in done.stdout for row in document["rows"])
