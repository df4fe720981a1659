"""A second look at the tests that failed, for `.ci/run`: a test that fails on a busy machine alone is unsteady, and has
to be mended, but says nothing of the change that is to land.

As a plugin of pytest (``-p tests.second_look --keep-failures=FOLDER``) it writes down what a run came to. The equals
sign is needed: a folder that stands by itself pytest takes for one of tests, and looks for its settings there. As a
command (``python -m tests.second_look FOLDER``) it runs the tests that failed once more, one after the other and
beside nothing else. Its exit status:

- 0: all of them passed; the last line names them.
- 1: one failed again, or what failed can be no matter of luck: a run that broke off, a module that cannot be
  imported, more tests than `MOST`, or a command that failed though no test did.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

MOST: Final = 10
"""So many tests fail at once for a reason."""

PYTEST: Final = (sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:randomly", "-p", "tests.second_look")


# What a run came to, as a plugin


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to write it."""
    parser.addoption("--keep-failures", metavar="FOLDER", help="Write down which tests failed, for a second look.")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin where this is the process that all others report to."""
    folder: str | None = config.getoption("--keep-failures")
    if folder is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Keeper(Path(folder).absolute(), config.option.markexpr))


class _Keeper:
    """Writes one file a run: as one that broke off at first, whole at its end."""

    def __init__(self, folder: Path, markers: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{uuid.uuid4().hex}.json"
        self._markers = markers
        self._failed: dict[str, str] = {}
        self._passed: set[str] = set()
        self._unreadable: list[str] = []
        self._write(None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each phase of each test, of all workers."""
        if report.failed:
            self._failed.setdefault(report.nodeid, _reason(report))
        elif report.passed and report.when == "call":
            self._passed.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be read is no test."""
        if report.failed:
            self._unreadable.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """The run is whole."""
        self._write(int(exitstatus))

    def _write(self, status: int | None) -> None:
        kept = {
            "status": status,
            "markers": self._markers,
            "failed": self._failed,
            "passed": sorted(self._passed - set(self._failed)) if len(self._passed) <= MOST else [],
            "unreadable": self._unreadable,
        }
        self._path.write_text(json.dumps(kept))


def _reason(report: pytest.TestReport) -> str:
    """The first line of why it failed."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(crash.message if crash is not None else report.longrepr).strip().splitlines()
    return f"{report.when}: {lines[0] if lines else 'failed'}"


# The second look, as a command


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of pytest came to. ``status``: None where it broke off."""

    status: int | None
    markers: str
    failed: dict[str, str]
    passed: frozenset[str]
    unreadable: tuple[str, ...]


def runs(folder: Path) -> list[Run]:
    """All that were kept in ``folder``."""
    kept: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [
        Run(one["status"], one["markers"], one["failed"], frozenset(one["passed"]), tuple(one["unreadable"]))
        for one in kept
    ]


def beyond_luck(kept: list[Run]) -> str | None:
    """Why another look would tell nothing; None where it would."""
    failed = sum(len(run.failed) for run in kept)
    if any(run.status is None for run in kept):
        return "a run of pytest broke off"
    if unreadable := [name for run in kept for name in run.unreadable]:
        return f"not even collected: {', '.join(unreadable)}"
    if odd := [run.status for run in kept if run.status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)]:
        return f"pytest ended with status {odd[0]}"
    if failed == 0:
        return "it was no test that failed"
    if failed > MOST:
        return f"{failed} tests failed"
    return None


def look_again(kept: list[Run], folder: Path) -> list[str]:
    """Run what failed by itself, and name whatever did not pass then: what was skipped, or found no more, did not."""
    left: list[str] = []
    for number, run in enumerate(run for run in kept if run.failed):
        again = folder / f"again-{number}"
        options = ["-m", run.markers, f"--keep-failures={again}", *run.failed]
        status = subprocess.run([*PYTEST, *options], check=False).returncode
        passed = frozenset(name for one in runs(again) for name in one.passed)
        not_passed = [name for name in run.failed if name not in passed]
        left += not_passed if status == pytest.ExitCode.OK or not_passed else [*run.failed]
    return left


def main(folder: Path) -> int:
    """The exit status; what is found is printed."""
    kept = runs(folder)
    if why := beyond_luck(kept):
        print(f"no second look: {why}")
        return 1
    names = {name: reason for run in kept for name, reason in run.failed.items()}
    print("second look, each by itself:")
    for name, reason in names.items():
        print(f"  {name}\n    failed first with {reason}", flush=True)
    if left := look_again(kept, folder):
        print(f"failed twice: {', '.join(left)}")
        return 1
    print(f"passed at the second try: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
