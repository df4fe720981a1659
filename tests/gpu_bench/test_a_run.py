"""A whole run, with simulated boxes where vLLM would be: what is printed, kept, told of failures, and left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.gpu.boxes import gpu_is_here
from bench.gpu.settings import SECTIONS
from bench.servers import ROOT

SMALL = ("--shape", "tiny", "--vllm-version", "0.32.0", "--requests-per-minute", "600", "--seconds", "2")
SMALL += ("--warm-up", "0.5", "--singles", "4", "--single-tokens", "4")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "stand_in.py"} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


@pytest.fixture
def asked(python: Path, tmp_path: Path) -> list[str]:
    return [sys.executable, "-m", "bench.gpu", *SMALL, "--python", str(python), "--folder", str(tmp_path / "kept")]


@pytest.fixture
def bench(asked: list[str]) -> Run:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*asked, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)

    return run


@pytest.mark.timeout(200)
def test_one_call_prints_the_whole_table_and_a_second_measures_nothing_again(bench: Run, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    first = bench("--json", str(file))
    assert first.returncode == 0, first.stdout + first.stderr
    document = json.loads(file.read_text())
    assert set(document["sections"]) == set(SECTIONS)
    found = {row[0]: row[-1] for row in document["rows"]}
    assert [name for name, cell in found.items() if cell == "–"] == []
    cost = {name: one["p50"] for part in ("swap", "disk") for name, one in document["sections"][part].items()}
    # A simulated box takes 0.4 s longer for a file than for its pool: so each was where it was meant to be.
    assert cost["disk"] > cost["pool"] + 100
    assert cost["page_cache"] > cost["pool"] + 100
    assert not any("Not measured" in note for note in document["notes"])
    assert "cold swap from the CPU pool" in first.stdout
    assert "] shared: up after" in first.stderr
    second = bench()
    assert second.returncode == 0
    assert "up after" not in second.stderr
    assert second.stdout == first.stdout


@pytest.mark.timeout(200)
def test_sections_are_measured_by_calls_of_their_own(bench: Run) -> None:
    first = bench("--only", "disk")
    assert first.returncode == 0, first.stderr
    assert "small-pool: up" in first.stderr
    assert "shared" not in first.stderr
    assert "Not measured with these settings yet: load, swap, gateway, base" in first.stdout
    second = bench("--only", "swap")
    assert "small-pool" not in second.stderr
    assert "Not measured with these settings yet: load, gateway, base" in second.stdout


def test_a_server_that_does_not_start_shows_the_end_of_its_log(bench: Run) -> None:
    done = bench("--only", "swap", "--extra=--no-such-flag")
    assert done.returncode == 1
    assert "swap failed: the shared server 0 ended while it started" in done.stderr
    assert "unrecognized arguments: --no-such-flag" in done.stderr
    assert "Not measured with these settings yet: load, swap" in done.stdout


def test_the_first_error_of_the_log_is_quoted_and_what_would_fail_alike_is_not_tried(bench: Run) -> None:
    done = bench("--only", "swap", "--only", "disk", "--only", "base", "--extra=--no-such-engine")
    assert done.returncode == 1
    assert "See root cause above" in done.stderr
    assert "the first error in it:\nEngineCore failed to start.\n" in done.stderr
    assert "RuntimeError: Failed to infer device type" in done.stderr
    assert "disk, base: not tried" in done.stderr
    assert "small-pool" not in done.stderr


@pytest.mark.skipif(gpu_is_here(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_before_anything_is_made(python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    command = [sys.executable, "-m", "bench.gpu", "--vllm-version", "0.32.0", "--python", str(python)]
    done = subprocess.run(
        [*command, "--folder", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "no GPU here: use `--shape tiny --device cpu`" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("device", ["nvidia0", "kfd", "dxg"])
def test_a_gpu_is_known_by_its_drivers_device(device: str, tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert not gpu_is_here(tmp_path), "a driver without a card"
    (tmp_path / device).touch()
    assert gpu_is_here(tmp_path)


def test_an_interpreter_without_vllm_is_said_to_have_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--folder", str(tmp_path), "--python", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "has no vLLM" in done.stderr) == (3, True)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_it_nothing_that_it_started_lives_on(
    asked: list[str], tmp_path: Path, how: signal.Signals
) -> None:
    command = [*asked, "--only", "load", "--seconds", "60"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr is not None
            told = []
            for line in running.stderr:
                told.append(line)
                if "] load: 600 requests a minute" in line:
                    break
            assert len(started(tmp_path)) >= 2, told
            os.kill(running.pid, how)
            running.wait(90)
        finally:
            running.kill()
    until = time.monotonic() + 60
    while left := started(tmp_path):
        assert time.monotonic() < until, left
        time.sleep(0.05)


def started(folder: Path) -> list[str]:
    """Command lines of processes that write into ``folder``: all that the benchmark starts keep their logs there."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and (process / "fd/1").readlink().is_relative_to(folder):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found
