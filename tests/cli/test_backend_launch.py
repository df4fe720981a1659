"""`failsoft backend launch BOX`: followed until a token comes, started again after a crash, ended without leftovers.

A stand-in prints and serves what vLLM would; the real one is in tests/engine.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.cli.main import main
from tests.backend.boxes import PolicyFolder
from tests.support.alive import is_alive
from tests.support.eventually import eventually
from tests.support.processes import Process, Processes

FAKE = Path(__file__).parent.parent / "backend" / "fake_engine.py"


@pytest.fixture
def policies(tmp_path: Path) -> PolicyFolder:
    return PolicyFolder(tmp_path)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that starts the stand-in, whatever it is told to run."""
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


class Launched:
    """The command in a process of its own."""

    def __init__(self, process: Process, log: Path, port: int) -> None:
        self.process = process
        self.log = log
        self._url = f"http://127.0.0.1:{port}"

    async def says(self, text: str) -> str:
        """All output, once ``text`` is in it."""
        await self.process.ready(lambda: text in self.process.output, within_s=20)
        return self.process.output

    def about(self) -> dict[str, Any]:
        """What the stand-in says of itself."""
        found: dict[str, Any] = httpx2.get(f"{self._url}/about", trust_env=False).json()
        return found


@pytest.fixture
def start(policies: PolicyFolder, python: Path, processes: Processes, tmp_path: Path) -> Any:
    def start(*options: str, env: dict[str, str] | None = None) -> Launched:
        log = tmp_path / "a.log"
        command = [sys.executable, "-m", "gateway.cli", "backend", "launch", "a", "--policies", str(policies.path)]
        command += ["--python", str(python), "--log", str(log), *options]
        return Launched(processes.command(command, name="launch", env=env), log, policies.port)

    return start


async def test_a_start_is_told_phase_by_phase_until_a_token_comes_and_sigterm_drains(start: Any) -> None:
    box = start()
    said = await box.says("ready after")
    phases = [
        "imports, configuration",
        "weights",
        "memory profile, KV cache",
        "warm-up, graph capture",
        "adapters, HTTP",
    ]
    assert [said.index(f"a: {phase}") for phase in phases] == sorted(said.index(f"a: {phase}") for phase in phases)
    for detail in ("2 of 2 files", "room for 524,288 tokens", "100 %", "1 of 1 adapters"):
        assert detail in said
    assert "\x1b" not in said, "no terminal, no colours"
    family = [box.about()["api"], box.about()["engine"]]
    box.process.terminate()
    assert await box.process.ended() == 0
    assert "SIGTERM: running requests have 30 s" in box.process.output
    assert "drained" in box.log.read_text()
    await eventually(lambda: not any(map(is_alive, family)))


async def test_a_resolver_that_the_shell_turns_on_does_not_reach_the_box_and_this_is_said(start: Any) -> None:
    box = start(
        env={
            "VLLM_PLUGINS": "mine,lora_filesystem_resolver",
            "VLLM_LORA_RESOLVER_CACHE_DIR": "/adapters",
            "VLLM_LORA_RESOLVER_HF_REPO_LIST": "acme/adapters",
        }
    )
    said = await box.says("ready after")
    has = box.about()["environment"]
    assert has["VLLM_PLUGINS"] == "mine"
    assert not any(name.startswith("VLLM_LORA_RESOLVER") for name in has)
    for name in ("VLLM_PLUGINS", "VLLM_LORA_RESOLVER_CACHE_DIR", "VLLM_LORA_RESOLVER_HF_REPO_LIST"):
        assert f"warning: {name} is set here and turns on a LoRA resolver" in said


async def test_a_crash_is_followed_by_a_start_and_no_engine_is_left_over(start: Any) -> None:
    box = start("--restarts", "1")
    await box.says("ready after")
    first = box.about()
    os.kill(first["api"], signal.SIGKILL)
    said = await box.says("starts again in 1 s (1 of 1)")
    assert "ended while it served (killed by signal 9)" in said
    await eventually(lambda: not is_alive(first["engine"]))
    await box.process.ready(lambda: box.process.output.count("ready after") == 2, within_s=20)
    os.kill(box.about()["api"], signal.SIGKILL)
    assert await box.process.ended() == 1
    assert "is not started again" in box.process.output


async def test_a_start_that_fails_shows_the_log_s_end_the_cause_and_what_to_do_and_is_not_repeated(
    start: Any, policies: PolicyFolder
) -> None:
    says = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    policies.engine(env={"FAKE_VLLM_SAYS": says})
    box = start("--restarts", "3")
    assert await box.process.ended(within_s=20) == 1
    said = box.process.output
    assert says in said
    assert "the GPU is out of memory: lower engine.gpu_memory_utilization" in said
    assert "starts again" not in said
    assert says in box.log.read_text()
    assert box.log.stat().st_mode & 0o077 == 0


async def test_a_server_that_is_deaf_is_killed_by_a_second_signal(start: Any, policies: PolicyFolder) -> None:
    policies.engine(env={"FAKE_VLLM_DEAF": "1"})
    box = start()
    await box.says("ready after")
    family = [box.about()["api"], box.about()["engine"]]
    box.process.terminate()
    await box.says("a second signal ends it at once")
    box.process.terminate()
    assert await box.process.ended() == 0
    assert "had to be killed" in box.process.output
    await eventually(lambda: not any(map(is_alive, family)))


async def test_the_box_s_key_comes_by_its_environment_and_the_token_is_asked_for_with_it(
    start: Any, policies: PolicyFolder
) -> None:
    policies.box(api_key="${BOX_KEY}")
    box = start(env={"BOX_KEY": "sesame"})
    said = await box.says("ready after")
    about = box.about()
    assert about["environment"]["VLLM_API_KEY"] == "sesame"
    assert "sesame" not in said + " ".join(about["arguments"])


async def test_a_key_of_the_shell_is_not_the_box_s(start: Any) -> None:
    box = start(env={"VLLM_API_KEY": "of the shell"})
    await box.says("ready after")
    assert box.about()["environment"]["VLLM_API_KEY"] == ""


async def test_a_server_that_gives_no_token_in_time_is_ended(start: Any, policies: PolicyFolder) -> None:
    policies.fleet(base_model="another")
    box = start("--start-within", "1")
    assert await box.process.ended(within_s=20) == 1
    assert "gave no token within 1 s: the last answer was status 401 from /v1/completions" in box.process.output


async def test_a_terminal_gets_a_table_that_moves(policies: PolicyFolder, python: Path, tmp_path: Path) -> None:
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "gateway.cli", "backend", "launch", "a", "--policies", str(policies.path)]
    command += ["--python", str(python), "--log", str(tmp_path / "a.log")]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    shown = b""

    def look() -> bool:
        nonlocal shown
        while b"ready after" not in shown:
            try:
                shown += os.read(terminal, 65536)
            except BlockingIOError:
                return False
        return True

    os.set_blocking(terminal, False)
    with subprocess.Popen(  # noqa: ASYNC220
        command, stdout=inside, stderr=inside, stdin=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(inside)
        try:
            await eventually(look, within_s=20)
        finally:
            process.terminate()
            process.wait(20)
            os.close(terminal)
    text = shown.decode()
    assert "\x1b[" in text
    assert "✓" in text
    assert "room for 524,288 tokens" in text


class Refused:
    """Runs the command in this process, where it is to be refused before anything is started."""

    def __init__(self, policies: PolicyFolder, capsys: pytest.CaptureFixture[str]) -> None:
        self._policies = policies
        self._capsys = capsys

    def __call__(self, *options: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["backend", "launch", "a", "--policies", str(self._policies.path), *options])
        return int(ended.value.code or 0), self._capsys.readouterr().err


@pytest.fixture
def refused(policies: PolicyFolder, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused(policies, capsys)


def test_the_installed_release_decides_which_flags_are_taken(
    policies: PolicyFolder, python: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies.engine(extra=["--max-num-active-seqs", "4"])
    monkeypatch.setenv("FAKE_VLLM_VERSION", "0.20.1")
    code, err = refused("--python", str(python))
    assert code == 1
    assert "--max-num-active-seqs came with vLLM 0." in err


def test_a_key_that_is_not_set_is_named_before_the_start(
    policies: PolicyFolder, python: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOX_KEY", raising=False)
    policies.box(api_key="${BOX_KEY}")
    assert refused("--python", str(python)) == (1, "a: error: ${BOX_KEY} is not set (export it before this command)\n")


def test_a_machine_without_the_model_or_the_adapters_is_not_the_box(
    policies: PolicyFolder, python: Path, refused: Refused
) -> None:
    policies.fleet(model_path="/nowhere/model", adapter_root="/nowhere/adapters")
    code, err = refused("--python", str(python))
    assert code == 1
    assert "model_path is /nowhere/model, which is no folder here" in err
    assert "adapter_root is /nowhere/adapters, which is no folder here" in err


def test_a_port_that_is_taken_is_told_before_minutes_of_loading(
    policies: PolicyFolder, python: Path, refused: Refused
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", policies.port)):
        code, err = refused("--python", str(python))
    assert code == 1
    assert "cannot be listened on: another process does" in err


def test_where_there_is_no_vllm_the_exit_says_that_it_could_not_be_reached(
    policies: PolicyFolder, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, err = refused("--python", sys.executable)
    assert (code, "has no vLLM" in err) == (3, True)
    code, err = refused("--python", str(tmp_path / "none"))
    assert (code, "cannot be run: No such file or directory" in err) == (3, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, err = refused()
    assert (code, "name the program with --vllm" in err) == (3, True)


def test_a_program_s_version_is_asked_of_the_interpreter_that_it_names(
    policies: PolicyFolder, python: Path, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "vllm"
    program.write_text(f"#!{python}\n")
    monkeypatch.setenv("FAKE_VLLM_VERSION", "0.6.3.post1")
    policies.engine(extra=["--enable-server-load-tracking"])
    code, err = refused("--vllm", str(program))
    assert code == 1
    assert "came with vLLM 0.20, and this is 0.6.3.post1" in err
