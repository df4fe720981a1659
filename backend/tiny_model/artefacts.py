"""Where the tiny model's files lie, and what they are made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from backend.made_once import PINS, ROOT, ModelFiles, ensured, inputs_digest

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


@dataclass(frozen=True, slots=True)
class TinyModel(ModelFiles):
    """The files of one tiny model."""

    names: ClassVar[tuple[str, ...]] = ADAPTER_NAMES


def inputs() -> str:
    """The digest of this package's code and of the engine's pins."""
    return inputs_digest([*sorted(_PACKAGE.glob("*.py")), PINS])


def default_folder() -> Path:
    """``.cache/tiny-model/<digest of the inputs>`` below the repository."""
    return ROOT / ".cache" / "tiny-model" / inputs()


def ensure(engine_python: Path, root: Path | None = None) -> TinyModel:
    """The tiny model, made by the engine's Python where it is not there yet. Takes seconds once, then milliseconds.

    Raises MakingFailed with what that process said when it fails.
    """
    root = default_folder() if root is None else root
    return TinyModel(ensured(engine_python, "backend.tiny_model", root, inputs()))
