"""How a start is followed, why it failed, and when it is tried again: the pure parts of the supervisor."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.diagnosis import diagnose
from backend.log_file import LogFile
from backend.restarts import LONGEST_S, STEADY_S, Restarts
from backend.start_progress import Phase, StartProgress

ON_A_GPU = {
    "(EngineCore pid=7) INFO 11-25 14:31:03 [core.py:133] Initializing a V1 LLM engine (v0.32.0)": Phase.STARTING,
    "(Worker pid=9) INFO [gpu_model_runner.py:5040] Starting to load model /models/llama...": Phase.WEIGHTS,
    "Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:03<00:03,  1.6s/it]": Phase.WEIGHTS,
    "(Worker pid=9) INFO [runner.py:5150] Model loading took 15.0 GiB memory and 7.3 seconds": Phase.PROFILING,
    "(Worker pid=9) INFO [monitor.py:20] torch.compile took 21.40 s in total": Phase.PROFILING,
    "(Worker pid=9) INFO [gpu_worker.py:760] Available KV cache memory: 52.1 GiB": Phase.PROFILING,
    "(EngineCore pid=7) INFO [kv_cache_utils.py:2327] GPU KV cache size: 426,752 tokens": Phase.PROFILING,
    "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  40%|####  | 14/35": Phase.WARM_UP,
    "(Worker pid=9) INFO [gpu_model_runner.py:6582] Graph capturing finished in 12 secs, took 0.9 GiB": Phase.WARM_UP,
    "INFO [core.py:402] init engine (profile, create kv cache, warmup model) took 44.1 s": Phase.SERVING,
    "(APIServer pid=5) INFO [serving.py:226] Loaded new LoRA adapter: name 'acme', path '/a'": Phase.SERVING,
    "INFO:     Application startup complete.": Phase.SERVING,
}

times = st.floats(0, 1000)
log_lines = st.lists(st.sampled_from([*ON_A_GPU, "INFO something else", ""]) | st.text(max_size=40))


def test_a_start_on_a_gpu_goes_through_every_phase() -> None:
    progress = StartProgress(40, 0.0)
    for second, (line, phase) in enumerate(ON_A_GPU.items()):
        progress.feed(line, float(second))
        assert progress.phase is phase, line
    assert progress.details == {
        Phase.WEIGHTS: "2 of 4 files",
        Phase.PROFILING: "room for 426,752 tokens",
        Phase.WARM_UP: "40 %",
        Phase.SERVING: "1 of 40 adapters",
    }


@given(log_lines, st.lists(times, min_size=1))
def test_no_line_brings_back_a_phase_that_is_over_and_the_phases_make_up_the_whole(
    lines: list[str], gaps: list[float]
) -> None:
    now_s, progress, seen = 100.0, StartProgress(1, 100.0), [Phase.STARTING]
    for number, line in enumerate(lines):
        now_s += gaps[number % len(gaps)]
        progress.feed(line, now_s)
        seen.append(progress.phase)
    assert seen == sorted(seen)
    progress.answered(now_s)
    assert progress.phase is Phase.READY
    spent = [progress.seconds_in(phase, now_s) or 0.0 for phase in Phase]
    assert sum(spent) == pytest.approx(now_s - 100.0)


@given(log_lines)
def test_a_line_is_news_only_where_something_can_be_shown_anew(lines: list[str]) -> None:
    progress = StartProgress(1, 0.0)
    for line in lines:
        before = (progress.phase, dict(progress.details))
        assert progress.feed(line, 0.0) == (before != (progress.phase, progress.details))


@pytest.mark.parametrize(
    ("log", "cause", "lasting"),
    [
        ("api_server.py: error: unrecognized arguments: --swap-space", "vLLM does not know --swap-space", True),
        ("vllm: error: argument --dtype: invalid choice: 'int4'", "vLLM refuses an argument --dtype", True),
        ("OSError: [Errno 98] Address already in use", "another process listens on the box's port", False),
        ("OSError: [Errno 99] Cannot assign requested address", "has not got the address in the box's url", True),
        ("ValueError: Loading lora acme failed: No adapter found for /nowhere/a", "no adapter in /nowhere/a", True),
        (
            "ValueError: Call to add_lora method failed: Worker failed with error 'LoRA rank 16 is greater than "
            "max_lora_rank 8.', please check the stack trace above for the root cause",
            "an adapter has rank 16, and max_lora_rank is 8",
            True,
        ),
        ("HFValidationError: Repo id must be in the form 'repo_name'", "the model is not there", True),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "the GPU is out of memory", True),
        (
            "ValueError: Free memory on device cuda:0 (3/80 GiB) is less than desired GPU memory utilization",
            "the GPU has not got that much memory free",
            True,
        ),
        (
            "ValueError: Available memory on node 0 (9.55/12.21 GiB) on kv cache allocation is less than requested",
            "no memory left for the KV cache",
            True,
        ),
        ("RuntimeError: No CUDA GPUs are available", "vLLM sees no GPU", True),
        ("/env/bin/python: No module named 'vllm'", "the interpreter has no module vllm", True),
    ],
)
def test_a_well_known_failure_is_named_with_what_to_do(log: str, cause: str, lasting: bool) -> None:
    around = f"INFO starting\n{log}\nRuntimeError: Engine core initialization failed. See root cause above.\n"
    found = diagnose(around, 1)
    assert found is not None
    assert cause in found.cause
    assert found.lasting is lasting
    assert found.advice


def test_a_failure_that_is_not_known_gets_no_made_up_cause() -> None:
    assert diagnose("ValueError: something new", 1) is None
    killed = diagnose("", -9)
    assert killed is not None
    assert "SIGKILL" in killed.cause


@given(st.text())
def test_no_log_breaks_the_diagnosis(log: str) -> None:
    diagnose(log, 1)


@given(st.integers(0, 6), st.lists(st.none() | st.floats(0, STEADY_S * 2), max_size=30))
def test_starts_are_counted_spaced_out_and_forgiven_after_steady_service(
    allowed: int, lives: list[float | None]
) -> None:
    restarts, in_a_row = Restarts(allowed), 0
    for served_s in lives:
        if served_s is not None and served_s >= STEADY_S:
            in_a_row = 0
        wait_s = restarts.after_crash(served_s)
        assert (wait_s is None) == (in_a_row >= allowed)
        if wait_s is None:
            return
        assert wait_s == min(LONGEST_S, 2.0**in_a_row)
        in_a_row += 1


def test_a_log_is_read_as_it_grows_line_by_line_and_bar_by_bar(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a.log"
    log = LogFile(path)
    log.open()
    with path.open("ab") as writer:
        writer.write(b"one\ntw")
        writer.flush()
        assert log.new_lines() == ["one"]
        writer.write(b"o\n 10%\r 20%\rhalf")
        writer.flush()
        assert log.new_lines() == ["two", " 10%", " 20%"]
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_what_an_earlier_start_printed_is_kept_and_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("of yesterday\n")
    log = LogFile(path)
    log.open()
    position = log.position()
    with path.open("a") as writer:
        writer.write("of today\n")
    assert log.new_lines() == ["of today"]
    assert log.since(position) == "of today\n"
    assert path.read_text() == "of yesterday\nof today\n"


def test_a_log_that_is_too_long_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = LogFile(path, max_bytes=10)
    log.open()
    with path.open("ab", buffering=0) as writer:
        writer.write(b"more than ten bytes\n")
        assert log.trim()
        writer.write(b"new\n")
        assert not log.trim()
    assert path.read_text() == "new\n"
    assert (tmp_path / "a.log.1").read_text() == "more than ten bytes\n"
    assert log.new_lines() == ["new"]


def test_a_log_that_cannot_be_copied_is_emptied_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    path = tmp_path / "a.log"
    log = LogFile(path, max_bytes=10)
    log.open()
    path.write_bytes(b"more than ten bytes\n")
    with pytest.raises(OSError, match="No space left"):
        log.trim()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.log"]
    assert path.read_bytes() == b""
