"""How a box is started and ended. Needs no engine: a stand-in starts the same family of processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from backend.launch import BoxError, BoxPlan, VllmBox, free_port, vllm_command
from tests.support.alive import is_alive

PLAN = BoxPlan(model=Path("/models/tiny"), port=8000, adapters={"acme": Path("/a/acme"), "globex": Path("/a/globex")})


def after(flag: str, arguments: tuple[str, ...]) -> str:
    return arguments[arguments.index(flag) + 1]


def test_the_command_names_the_model_the_port_and_every_adapter() -> None:
    arguments = vllm_command(PLAN, python=Path("/env/bin/python")).arguments
    assert arguments[:3] == ("/env/bin/python", "-m", "vllm.entrypoints.openai.api_server")
    assert (after("--model", arguments), after("--port", arguments)) == ("/models/tiny", "8000")
    assert after("--served-model-name", arguments) == "base"
    where = arguments.index("--lora-modules")
    assert arguments[where + 1 : where + 3] == ("acme=/a/acme", "globex=/a/globex")


def test_a_box_without_adapters_is_not_told_of_any() -> None:
    arguments = vllm_command(BoxPlan(model=Path("/models/tiny"), port=8000)).arguments
    assert not any("lora" in argument for argument in arguments)


def test_extra_arguments_come_last_so_that_they_win() -> None:
    plan = BoxPlan(model=Path("/models/tiny"), port=8000, extra=("--max-num-seqs", "4"))
    assert vllm_command(plan).arguments[-2:] == ("--max-num-seqs", "4")


def test_more_adapters_than_the_pool_holds_are_refused_as_an_eviction_could_end_the_engine() -> None:
    crowded = BoxPlan(model=Path("/m"), port=8000, adapters=PLAN.adapters, max_loras=1, max_cpu_loras=1)
    with pytest.raises(ValueError, match="max_cpu_loras is 1, too few for 2 adapters"):
        vllm_command(crowded)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that starts the stand-in, whatever module it is told to run."""
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "fake_vllm.py"} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


@pytest.fixture
def make_box(python: Path, tmp_path: Path) -> Callable[..., VllmBox]:
    def make(*extra: str) -> VllmBox:
        plan = BoxPlan(model=Path("/models/tiny"), port=free_port(), extra=extra)
        return VllmBox("box-a", plan, log=tmp_path / "box-a.log", python=python)

    return make


def wait_for_the_end_of(pid: int) -> None:
    until = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < until, f"process {pid} lives on"
        time.sleep(0.01)


def test_a_box_is_ready_when_it_gives_a_token_and_gone_when_its_context_is_left(
    make_box: Callable[..., VllmBox],
) -> None:
    with make_box() as box:
        box.start()
        box.wait_until_ready(20)
        assert httpx2.get(f"{box.url}/health", trust_env=False).status_code == 200
        family = [box.pid, box.engine_pid()]
    assert not box.running
    for pid in family:
        wait_for_the_end_of(pid)


def test_a_box_that_is_healthy_and_gives_no_token_is_not_ready(make_box: Callable[..., VllmBox]) -> None:
    with make_box("--tokenless") as box:
        box.start()
        with pytest.raises(BoxError, match="box-a gave no token within 1 s"):
            box.wait_until_ready(1)


def test_a_box_that_ends_at_its_start_says_what_it_printed(make_box: Callable[..., VllmBox]) -> None:
    with make_box("--broken") as box:
        box.start()
        with pytest.raises(BoxError, match=r"(?s)box-a ended while it started.*no such adapter"):
            box.wait_until_ready(20)


def test_killing_the_engine_leaves_the_server_that_it_belonged_to(make_box: Callable[..., VllmBox]) -> None:
    with make_box() as box:
        box.start()
        box.wait_until_ready(20)
        engine = box.engine_pid()
        box.kill_engine()
        wait_for_the_end_of(engine)
        assert box.running


def test_a_killed_box_takes_its_engine_along_and_comes_back_at_the_same_address(
    make_box: Callable[..., VllmBox],
) -> None:
    with make_box() as box:
        box.start()
        box.wait_until_ready(20)
        engine, url = box.engine_pid(), box.url
        box.kill()
        wait_for_the_end_of(engine)
        box.start()
        box.wait_until_ready(20)
        assert box.url == url
        assert box.engine_pid() != engine


def test_the_engine_of_a_server_that_was_killed_alone_is_swept_up(make_box: Callable[..., VllmBox]) -> None:
    with make_box() as box:
        box.start()
        box.wait_until_ready(20)
        engine = box.engine_pid()
        os.kill(box.pid, signal.SIGKILL)
        assert box.wait_until_ended(20) == -signal.SIGKILL
        wait_for_the_end_of(engine)


def test_a_box_that_ignores_sigterm_is_killed_after_its_grace(make_box: Callable[..., VllmBox]) -> None:
    with make_box("--deaf") as box:
        box.start()
        box.wait_until_ready(20)
        pid = box.pid
        box.stop(0.1)
        assert not is_alive(pid)


def test_a_box_takes_no_modules_from_where_it_happens_to_be_started(
    make_box: Callable[..., VllmBox], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    with make_box() as box:
        box.start()
        box.wait_until_ready(20)
        assert "interpreter path: \n" in box.log.read_text()


def test_a_box_that_does_not_run_has_no_engine_to_kill(make_box: Callable[..., VllmBox]) -> None:
    with pytest.raises(BoxError, match="does not run"):
        make_box().kill_engine()
