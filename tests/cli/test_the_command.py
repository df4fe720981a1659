"""The ``failsoft`` command as a whole: what it lists, what it loads, and how it tells a failure."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import typer

from gateway.cli import main as command_line
from gateway.cli.backend import app as backend
from gateway.cli.policies import app as policies
from gateway.errors import ConnectError, FailsoftError, PolicyError, StoreUnreachable, VersionConflict

ROOT = Path(__file__).parent.parent.parent


def failsoft(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)


def run_with(error: FailsoftError, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    def broken() -> None:
        raise error

    module = ModuleType("broken_subcommand")
    module.broken_subcommand = broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broken_subcommand", module)
    monkeypatch.setitem(command_line.SUBCOMMANDS, "broken", ("broken_subcommand", "Fails."))
    with pytest.raises(SystemExit) as ended:
        command_line.main(["broken"])
    return ended.value.code


def test_help_lists_every_subcommand() -> None:
    result = failsoft("--help")
    assert result.returncode == 0
    for name in command_line.SUBCOMMANDS:
        assert name in result.stdout


def test_the_version_is_printed() -> None:
    result = failsoft("--version")
    assert (result.returncode, result.stdout.split()[0]) == (0, "failsoft")


def test_an_unknown_subcommand_is_misuse() -> None:
    result = failsoft("serv")
    assert result.returncode == 2
    assert "No such command 'serv'" in result.stderr


def test_every_command_that_the_readme_names_is_there() -> None:
    there = set(command_line.SUBCOMMANDS)
    there |= {f"backend {command.name or command.callback.__name__}" for command in backend.registered_commands}  # type: ignore[union-attr]
    there |= {f"policies {command.name or command.callback.__name__}" for command in policies.registered_commands}  # type: ignore[union-attr]
    named = re.findall(r"failsoft ((?:backend |policies )?[a-z][a-z-]+)", (ROOT / "README.md").read_text())
    assert len(named) > 10
    groups = {"backend", "policies"}
    assert {name for name in named if name not in there | groups} == set()


def test_help_loads_neither_the_gateway_nor_litellm() -> None:
    script = (
        "import sys\nfrom gateway.cli.main import main\ntry:\n main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'fastapi', 'litellm', 'uvicorn', 'redis', 'gateway.app'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=30)


@pytest.mark.parametrize("name", command_line.SUBCOMMANDS)
def test_every_subcommand_that_is_listed_exists(name: str) -> None:
    module_name, _ = command_line.SUBCOMMANDS[name]
    module = import_module(module_name)
    group = getattr(module, "app", None)
    assert isinstance(group, typer.Typer) or callable(getattr(module, module_name.rpartition(".")[2]))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreUnreachable("the store is away"), 3),
        (ConnectError("refused"), 3),
        (VersionConflict("4 is not current"), 1),
        (PolicyError(("fleet.yaml:3: unknown key",)), 1),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(
    error: FailsoftError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(error, monkeypatch) == code
    printed = capsys.readouterr()
    assert printed.err == f"failsoft: {error}\n"
    assert printed.out == ""


def test_an_address_of_the_store_that_is_none_is_misuse() -> None:
    result = failsoft("serve", "--redis", "localhost:6379")
    assert result.returncode == 2
    assert "redis://HOST:PORT" in result.stderr
    assert "Traceback" not in result.stderr
