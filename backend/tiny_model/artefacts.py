"""Where the tiny model's files lie, how they are checked, and how they come to be there only once.

The folder is named for the digest of everything that the files depend on: this package's code and the engine's pins.
Its manifest holds the digest of every file, so that a copy that was cut short or touched is made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ADAPTER_NAMES: Final = (
    "customer_acme_v3",
    "customer_globex_v1",
    "customer_initech_v2",
    "customer_umbrella_v1",
    "customer_hooli_v5",
    "customer_stark_v2",
)
ADAPTER_RANK: Final = 16

_PACKAGE: Final = Path(__file__).parent
_ROOT: Final = _PACKAGE.parent.parent
_PINS: Final = _PACKAGE.parent / "engine.txt"
_MANIFEST: Final = "manifest.json"


class TinyModelError(Exception):
    """The tiny model could not be made."""


@dataclass(frozen=True, slots=True)
class TinyModel:
    """The files of one tiny model: ``root/base`` and one folder per adapter."""

    root: Path

    @property
    def base(self) -> Path:
        """The base model's folder, tokenizer and chat template included."""
        return self.root / "base"

    @property
    def adapters(self) -> dict[str, Path]:
        """The folder of every adapter by the adapter's name."""
        return {name: self.root / "adapters" / name for name in ADAPTER_NAMES}


def inputs_digest() -> str:
    """SHA-256 over the code that makes the files and over the engine's pins, shortened to 16 hex digits."""
    digest = hashlib.sha256()
    for path in (*sorted(_PACKAGE.glob("*.py")), _PINS):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def default_folder() -> Path:
    """``.cache/tiny-model/<digest of the inputs>`` below the repository."""
    return _ROOT / ".cache" / "tiny-model" / inputs_digest()


def is_whole(root: Path) -> bool:
    """Whether ``root`` holds exactly what was once written there, made from the inputs as they are now."""
    try:
        manifest = json.loads((root / _MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(manifest == {"inputs": inputs_digest(), "files": _file_digests(root)})


def make(root: Path, build: Callable[[Path], None]) -> bool:
    """Have ``build`` write the files into a new folder and move that to ``root`` in one step, unless it is whole.

    Returns whether anything was made. Two processes may do this at once: the first to finish wins.
    """
    if is_whole(root):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        build(scratch)
        manifest = {"inputs": inputs_digest(), "files": _file_digests(scratch)}
        (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        scratch.chmod(0o755)
        if is_whole(root):
            return False
        if root.exists():
            shutil.rmtree(root)
        scratch.rename(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def ensure(engine_python: Path, root: Path | None = None) -> TinyModel:
    """The tiny model, made by the engine's Python where it is not there yet. Takes seconds once, then milliseconds.

    Raises TinyModelError with what that process said when it fails.
    """
    root = default_folder() if root is None else root
    if not is_whole(root):
        command = [str(engine_python), "-m", "backend.tiny_model", "--out", str(root)]
        made = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)  # noqa: S603
        if made.returncode != 0:
            raise TinyModelError(f"making the tiny model failed:\n{made.stderr.strip()}")
    return TinyModel(root)


def _file_digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }
