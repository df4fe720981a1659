"""Files that code makes once and that are kept: where they lie, how they are checked, how two makers get along.

A folder is named for the digest of everything that its files depend on: the modules that make them and the engine's
pins. Its manifest holds that and the SHA-256 of every file, so that a copy that was cut short or touched, or that other
code made, is made anew. Training rounds differently on other processors: the digests say that the files are those which
were made here, not that they are the same everywhere.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

ROOT: Final = Path(__file__).parent.parent
PINS: Final = Path(__file__).parent / "engine.txt"
_MANIFEST: Final = "manifest.json"


class MakingFailed(Exception):
    """The files could not be made. The message says what the maker said."""


def inputs_digest(sources: Iterable[Path]) -> str:
    """SHA-256 over names and contents of what makes the files, shortened to 16 hex digits."""
    digest = hashlib.sha256()
    for path in sources:
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def is_whole(root: Path, inputs: str) -> bool:
    """Whether ``root`` holds exactly what was once written there, made from these inputs."""
    try:
        manifest = json.loads((root / _MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(manifest == {"inputs": inputs, "files": _file_digests(root)})


def make(root: Path, inputs: str, build: Callable[[Path], None]) -> bool:
    """Have ``build`` write the files into a new folder and move that to ``root`` in one step, unless it is whole.

    Returns whether anything was made. Two processes may do this at once: the first to finish wins.
    """
    if is_whole(root, inputs):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        build(scratch)
        manifest = {"inputs": inputs, "files": _file_digests(scratch)}
        (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        scratch.chmod(0o755)
        if is_whole(root, inputs):
            return False
        if root.exists():
            shutil.rmtree(root)
        scratch.rename(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def make_with(python: Path, module: str, root: Path) -> None:
    """Run ``module`` with another interpreter to make ``root``. Raises MakingFailed with the end of what it said.

    What it says is passed on as it comes, as it may take minutes.
    """
    command = [str(python), "-m", module, "--out", str(root)]
    said: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as making:  # noqa: S603
        for line in making.stderr or ():
            said = [*said[-30:], line]
            sys.stderr.write(line)
            sys.stderr.flush()
    if making.returncode != 0:
        raise MakingFailed(f"`python -m {module}` failed:\n{''.join(said).strip()}")


def ensured(python: Path, module: str, root: Path, inputs: str) -> Path:
    """``root``, made by ``module`` unless it is whole. Raises MakingFailed."""
    if not is_whole(root, inputs):
        make_with(python, module, root)
    return root


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A base model and its adapters: ``root/base``, and one folder per adapter in ``root/adapters``."""

    names: ClassVar[tuple[str, ...]]
    """The adapters'."""

    root: Path

    @property
    def base(self) -> Path:
        """The base model's folder, tokenizer and chat template included."""
        return self.root / "base"

    @property
    def adapters(self) -> dict[str, Path]:
        """The folder of every adapter by the adapter's name."""
        return {name: self.root / "adapters" / name for name in self.names}


def _file_digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }
