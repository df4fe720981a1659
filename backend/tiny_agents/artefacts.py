"""Where the tiny agents' files lie, and what they are made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from backend.made_once import PINS, ROOT, ModelFiles, ensured, inputs_digest
from backend.tiny_agents.houses import HOUSES

ADAPTER_NAMES: Final = tuple(house.adapter for house in HOUSES)
BASE_SET: Final = "base"
"""The name of the base's own eval set, of the generic tools."""

_PACKAGE: Final = Path(__file__).parent
_MAKERS: Final = ("wishes", "forms", "houses", "examples", "vocabulary", "base", "tuning", "build")


@dataclass(frozen=True, slots=True)
class TinyAgents(ModelFiles):
    """The tiny agents' files; beside base and adapters the eval sets, as JSON lines in ``root/eval``."""

    names: ClassVar[tuple[str, ...]] = ADAPTER_NAMES

    def eval_set(self, name: str) -> Path:
        """The file of held-out requests of an adapter, or of ``BASE_SET``.

        Each line is ``{"model", "messages", "tools", "expected": {"name", "arguments"}}``, as `failsoft eval` reads it.
        """
        return self.root / "eval" / f"{name}.jsonl"

    def held_out(self, name: str) -> list[dict[str, Any]]:
        """The lines of ``eval_set``, read. Raises OSError."""
        return [json.loads(line) for line in self.eval_set(name).read_text().splitlines()]


def inputs() -> str:
    """The digest of all that decides what is trained: the modules that do it, and the engine's pins."""
    return inputs_digest([*(_PACKAGE / f"{name}.py" for name in _MAKERS), PINS])


def default_folder() -> Path:
    """``.cache/tiny-agents/<digest of the inputs>`` below the repository."""
    return ROOT / ".cache" / "tiny-agents" / inputs()


def ensure(engine_python: Path, root: Path | None = None) -> TinyAgents:
    """The tiny agents, trained by the engine's Python where they are not there yet. Takes minutes once.

    Raises MakingFailed with what that process said when it fails.
    """
    root = default_folder() if root is None else root
    return TinyAgents(ensured(engine_python, "backend.tiny_agents", root, inputs()))
