"""gateway/Dockerfile, read: its stages and their instructions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from tests.deploy.compose import ROOT

TEXT = (ROOT / "gateway" / "Dockerfile").read_text()


@dataclass
class Stage:
    """One ``FROM``. ``steps``: instruction and argument, in their order."""

    image: str
    name: str | None
    steps: list[tuple[str, str]] = field(default_factory=list)

    def arguments(self, instruction: str) -> list[str]:
        """Those of every such instruction."""
        return [argument for word, argument in self.steps if word == instruction]


def stages() -> list[Stage]:
    """All of them, the one that becomes the image last."""
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    found: list[Stage] = []
    for instruction, argument in re.findall(r"^([A-Z]+) (.*)$", "\n".join(lines).replace("\\\n", ""), re.MULTILINE):
        if instruction == "FROM":
            image, _, name = argument.partition(" AS ")
            found.append(Stage(image, name or None))
        else:
            found[-1].steps.append((instruction, re.sub(r"\s+", " ", argument)))
    return found


def exec_form(argument: str) -> list[str]:
    """``["serve", "--host", …]``. Raises ValueError for the shell's form."""
    words: list[str] = json.loads(argument.removeprefix("CMD ") if argument.startswith("CMD ") else argument)
    return words
