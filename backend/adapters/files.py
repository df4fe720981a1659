"""An adapter's folder: what may be read of it, and what has no business there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from backend.adapters.finding import Finding, error, listed, shown, warning

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"

_LONGEST_JSON: Final = 4 * 1024 * 1024
_MOST_ENTRIES: Final = 20_000
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
_TRAINERS: Final = ("training_args.", "optimizer.", "scheduler.", "scaler.", "rng_state")
"""What transformers' Trainer leaves behind, as pickles; no server looks at them."""


class Folder:
    """Reads only regular files that really lie within ``boundary``, wherever links point; None is no limit."""

    def __init__(self, path: Path, boundary: Path | None) -> None:
        self.path = _real(path) or path.absolute()
        self._boundary = boundary.resolve() if boundary is not None else None

    @property
    def inside(self) -> bool:
        """Whether the folder itself lies within the boundary."""
        return self._holds(self.path)

    def file(self, name: str) -> Path | None:
        """The file itself, links followed; None where there is none, or it is not to be read."""
        path = _real(self.path / name)
        return path if path is not None and self._holds(path) and path.is_file() else None

    def text(self, name: str, most: int = _LONGEST_JSON) -> str | None:
        """A file's text; None where there is no such file. Raises OSError, and ValueError for what is no text."""
        path = self.file(name)
        if path is None:
            return None
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it is longer than {most} bytes")
        return content.decode()  # a byte order mark stays, as vLLM fails at one too

    def json(self, name: str) -> Any:
        """A file's JSON; None where there is no such file. Raises OSError and ValueError."""
        text = self.text(name)
        try:
            return None if text is None else json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    def strangers(self) -> Iterator[Finding]:
        """Links that lead out, and pickles. Looks into subfolders, follows no link."""
        leaving: list[str] = []
        pickles: list[str] = []
        leftovers: list[str] = []
        for path in self._entries():
            name = path.relative_to(self.path).as_posix()
            if path.is_symlink() and not self._holds(_real(path)):
                leaving.append(name)
            elif path.suffix.lower() in _PICKLES and not path.is_dir():
                (leftovers if path.name.startswith(_TRAINERS) else pickles).append(name)
        if leaving:
            message = f"a link leads out of its folder, and was not followed: {listed(leaving)}"
            yield error(
                "path-traversal",
                message,
                "Copy the file itself, or name the folder that holds both: --root DIR.",
                leaving,
            )
        if pickles:
            message = f"a pickle, which may run code where it is loaded: {listed(pickles)}"
            remedy = f"Delete it: boxes need only {CONFIG} and {WEIGHTS}."
            if self.file(WEIGHTS) is None:
                remedy = "Save with safe_serialization=True, which is PEFT's default, and delete it."
            yield error("pickle", message, remedy, pickles)
        if leftovers:
            message = f"the trainer left a pickle, which no box reads: {listed(leftovers)}"
            yield warning("trainer-leftovers", message, "Delete it before the adapter is handed on.", leftovers)

    def _holds(self, path: Path | None) -> bool:
        return path is not None and (self._boundary is None or path.is_relative_to(self._boundary))

    def _entries(self) -> Iterator[Path]:
        count = 0
        for folder, subfolders, files in os.walk(self.path, followlinks=False):
            for name in sorted((*subfolders, *files)):
                count += 1
                if count > _MOST_ENTRIES:
                    return
                yield Path(folder, name)


def _real(path: Path) -> Path | None:
    """Where the links lead in the end; None where they lead round in a circle."""
    try:
        return path.resolve()
    except RuntimeError:
        return None


def unreadable(name: str, problem: Exception) -> Finding:
    """A file that is there and cannot be used."""
    why = (problem.strerror or str(problem)) if isinstance(problem, OSError) else str(problem)
    return error(
        "unreadable", f"{name} cannot be read: {shown(why)}", "Export the adapter again, or mend its permissions."
    )
