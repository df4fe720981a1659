"""A run's folder: what is asked, and every answer as it comes, so that a run that was cut off goes on where it was.

``run.json``        the plan: digest of the sets, endpoints, sampling, what the endpoints said they are
``sets/``           the sets, as they were
``answers.jsonl``   one line an answer, appended at once
``result.json``, ``report.html``, ``junit.xml``   what came of it
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from types import TracebackType
from typing import IO, Any, Self

from backend.evalgate.case import SetFile
from backend.evalgate.said import Said

Key = tuple[str, str, str, int]
"""Path, customer, case's id, sample."""

PLAN = "run.json"
ANSWERS = "answers.jsonl"
SETS = "sets"


class BadFolder(ValueError):
    """The folder holds something else than what is asked for."""


class RunFolder:
    """Open for as long as the run lasts, and nobody else may. Raises BadFolder, OSError."""

    def __init__(self, root: FilePath) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._answers: IO[bytes] = (root / ANSWERS).open("ab+")
        try:
            fcntl.flock(self._answers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._answers.close()
            raise BadFolder(f"{root} is in use by another run") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._answers.close()

    def begin(self, plan: Mapping[str, Any], files: Iterable[SetFile]) -> None:
        """Take the plan in, or find that the folder has it. Raises BadFolder for another one."""
        path = self.root / PLAN
        if not path.exists():
            if self._answers.seek(0, os.SEEK_END):
                raise BadFolder(f"{self.root} holds answers without a plan")
            (self.root / SETS).mkdir(exist_ok=True)
            names = []
            for number, file in enumerate(files):
                name = f"{number:03}.jsonl"
                (self.root / SETS / name).write_text(file.text, encoding="utf-8")
                names.append({"file": name, "name": file.name, "customer": file.customer})
            write_whole(path, json.dumps({**plan, "sets": names}, indent=2))
            return
        kept = read_plan(self.root)
        changed = [key for key in plan if not _same(key, kept.get(key), plan[key])]
        if changed:
            words = "; ".join(f"{key} was {_short(kept.get(key))}, is {_short(plan[key])}" for key in changed)
            raise BadFolder(
                f"{self.root} holds a run of something else ({words}). Give another folder, or remove this one."
            )

    def answers(self) -> dict[Key, Said]:
        """All so far. A last line that was cut off in the middle is taken away. Raises BadFolder."""
        self._answers.seek(0)
        data = self._answers.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._answers.truncate(whole)
        return read_answers(self.root, data[:whole])

    def add(self, key: Key, said: Said) -> None:
        """Keep one more answer, at once."""
        path, customer, case, sample = key
        line = {"path": path, "customer": customer, "case": case, "sample": sample, "said": said.as_json()}
        self._answers.write(json.dumps(line).encode() + b"\n")
        self._answers.flush()


def read_plan(root: FilePath) -> dict[str, Any]:
    """``run.json``. Raises BadFolder."""
    try:
        plan = json.loads((root / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFolder(f"{root} holds no run: there is no {PLAN}") from None
    except ValueError as error:
        raise BadFolder(f"{root / PLAN} cannot be read: {error}") from None
    if not isinstance(plan, dict):
        raise BadFolder(f"{root / PLAN} is no plan")
    return plan


def read_files(root: FilePath, plan: Mapping[str, Any]) -> list[SetFile]:
    """The sets, as they were. Raises BadFolder."""
    try:
        return [
            SetFile(one["name"], one["customer"], (root / SETS / one["file"]).read_text(encoding="utf-8"))
            for one in plan["sets"]
        ]
    except (KeyError, TypeError, OSError, UnicodeDecodeError) as error:
        raise BadFolder(f"{root}: the sets cannot be read: {error}") from None


def read_answers(root: FilePath, data: bytes | None = None) -> dict[Key, Said]:
    """``answers.jsonl``; of a key that is there twice the first. Raises BadFolder."""
    if data is None:
        data = (root / ANSWERS).read_bytes() if (root / ANSWERS).exists() else b""
        data = data[: data.rfind(b"\n") + 1]
    found: dict[Key, Said] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            one = json.loads(line)
            key = one["path"], one["customer"], one["case"], one["sample"]
            found.setdefault(key, Said.from_json(one["said"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BadFolder(f"{root / ANSWERS}:{number} cannot be read: {error}") from None
    return found


def write_whole(path: FilePath, text: str) -> None:
    """The whole file or none of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8", errors="replace")
    beside.replace(path)


def _same(key: str, kept: Any, now: Any) -> bool:
    """Of what endpoints say of themselves, only what they said both times is compared."""
    if key == "served" and isinstance(kept, dict) and isinstance(now, dict):
        return all(_same(key, kept[name], now[name]) for name in kept.keys() & now.keys())
    return key == "began" or kept == now or (key == "served" and (kept is None or now is None))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else f"{text[:120]}…"
