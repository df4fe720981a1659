"""A test that failed gets a second look in CI, by itself: what is unsteady is named, what is broken still fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.second_look import Run, beyond_luck

ROOT = Path(__file__).parent.parent

FIRST = "from pathlib import Path\nimport os, signal\nimport pytest\n\n"
TRIED = """
    tried = Path(__file__).with_suffix(".tried")
    first = not tried.exists()
    tried.touch()
"""
UNSTEADY = FIRST + "def test_it():" + TRIED + '    assert not first, "too busy"\n'
MARKED = UNSTEADY.replace("def ", "@pytest.mark.slow\ndef ")
UNSTEADY_FIXTURE = FIRST + "@pytest.fixture\ndef one():" + TRIED + "    assert not first\n\ndef test_it(one): pass\n"
SKIPPED_LATER = FIRST + "def test_it():" + TRIED + "    first or pytest.skip()\n    assert not first\n"
DIES = FIRST + "def test_it():" + TRIED + "    first and os.kill(os.getpid(), signal.SIGKILL)\n"
BROKEN = "def test_it():\n    assert 1 == 2\n"
SOUND = "def test_it():\n    pass\n"
UNREADABLE = FIRST + TRIED.replace("\n    ", "\n") + "assert not first\n\n" + SOUND


class Suite:
    """A folder of tests, run as `make test` runs ours and looked at as `.ci/run` does."""

    def __init__(self, folder: Path, kept: Path) -> None:
        self._folder = folder
        # Elsewhere, and there before the run, as in CI.
        self._kept = kept
        kept.mkdir()
        (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\naddopts = -m 'not slow'\n")

    def run(self, *options: str, **modules: str) -> int:
        """Of these modules; the exit status."""
        names = [f"test_{name}.py" for name in modules]
        for name, text in zip(names, modules.values(), strict=True):
            (self._folder / name).write_text(text)
        return self.pytest(*options, *names)

    def pytest(self, *arguments: str) -> int:
        """The exit status."""
        return self._python("pytest", "-p", "tests.second_look", f"--keep-failures={self._kept}", *arguments).returncode

    def look(self) -> tuple[int, list[str]]:
        """Exit status and lines of the second look."""
        looked = self._python("tests.second_look", str(self._kept))
        return looked.returncode, looked.stdout.splitlines()

    def _python(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *arguments]
        # Other plugins only take time to start.
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return subprocess.run(
            command, cwd=self._folder, env=env, capture_output=True, text=True, timeout=50, check=False
        )


@pytest.fixture
def suite(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(tmp_path, tmp_path_factory.mktemp("elsewhere") / "kept")


def test_what_passes_by_itself_is_forgiven_and_named_with_its_first_failure(suite: Suite) -> None:
    assert suite.run(unsteady=UNSTEADY, other=UNSTEADY_FIXTURE, sound=SOUND) == 1
    assert suite.run("-m", "slow", marked=MARKED) == 1, "each run has markers of its own"
    status, lines = suite.look()
    assert status == 0, lines
    names = lines[-1].removeprefix("passed at the second try: ").split(", ")
    assert sorted(names) == ["test_marked.py::test_it", "test_other.py::test_it", "test_unsteady.py::test_it"]
    assert any("failed first with call: AssertionError: too busy" in line for line in lines)


def test_what_does_not_pass_by_itself_either_fails(suite: Suite, tmp_path: Path) -> None:
    assert suite.run(unsteady=UNSTEADY, broken=BROKEN, skipped=SKIPPED_LATER, gone=UNSTEADY) == 1
    (tmp_path / "test_gone.py").write_text("def test_it():\n    import pytest\n    pytest.skip()\n")
    status, lines = suite.look()
    assert status == 1
    names = lines[-1].removeprefix("failed twice: ").split(", ")
    assert sorted(names) == ["test_broken.py::test_it", "test_gone.py::test_it", "test_skipped.py::test_it"]


def test_a_worker_that_dies_is_looked_at_as_its_test_and_a_run_that_breaks_off_not_at_all(suite: Suite) -> None:
    assert suite.run("-p", "xdist", "-n", "1", dies=DIES, sound=SOUND) == 1
    status, lines = suite.look()
    assert (status, lines[-1]) == (0, "passed at the second try: test_dies.py::test_it")
    assert suite.run(dead=DIES) == -signal.SIGKILL
    assert suite.look() == (1, ["no second look: a run of pytest broke off"])


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "1")])
def test_a_run_of_the_whole_suite_keeps_the_settings_of_the_suite(
    suite: Suite, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "test_settings.py").write_text("def test_it(pytestconfig):\n    assert pytestconfig.inipath\n")
    (tmp_path / "test_marked.py").write_text(FIRST + "@pytest.mark.slow\n" + BROKEN)
    assert suite.pytest(*workers) == 0


def test_a_module_that_cannot_be_read_is_no_matter_of_luck(suite: Suite) -> None:
    suite.run(unreadable=UNREADABLE, unsteady=UNSTEADY)
    assert suite.look() == (1, ["no second look: not even collected: test_unreadable.py"])


FAILED = Run(1, "", {"a.py::test_it": "call: too busy"}, frozenset(), ())


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        ([], "it was no test that failed"),
        ([replace(FAILED, status=0, failed={})], "it was no test that failed"),
        ([FAILED, replace(FAILED, status=3)], "pytest ended with status 3"),
        ([FAILED, replace(FAILED, status=5, failed={})], "pytest ended with status 5"),
        ([FAILED, replace(FAILED, status=None)], "a run of pytest broke off"),
        ([replace(FAILED, failed={f"a.py::test_{n}": "" for n in range(6)})] * 2, "12 tests failed"),
        ([FAILED, FAILED], None),
    ],
)
def test_what_can_be_no_matter_of_luck_gets_none(kept: list[Run], why: str | None) -> None:
    assert beyond_luck(kept) == why
