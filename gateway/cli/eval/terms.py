"""What the subcommands of `failsoft eval` have in common: options, sets, how trouble is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.evalgate.case import BadSet, Case, SetFile, read_sets
from backend.evalgate.gate import POINTS, Gate, Judges
from gateway.cli.exit_codes import MISUSE
from gateway.cli.speech import say

INTERRUPTED = 130
"""What a shell says of a program that Ctrl-C ended."""


class EnumCase(StrEnum):
    """Whether an argument that is a declared enum value in another case is that value."""

    MATCH = "match"
    IGNORE = "ignore"


Sets = Annotated[
    list[Path],
    typer.Argument(
        metavar="SETS...", exists=True, help="Eval sets: JSON lines; of a folder every *.jsonl. A file is a customer's."
    ),
]
EnumCaseOption = Annotated[
    EnumCase, typer.Option("--enum-case", help="Whether `celsius` is `Celsius`, where the tool's schema has an enum.")
]
GateOption = Annotated[
    str | None,
    typer.Option(
        "--gate", metavar="POINTS", help=f"What no customer may lose, in percentage points [{POINTS}]; `off`: no gate."
    ),
]
JudgeOption = Annotated[
    Judges,
    typer.Option(
        "--judge",
        help="measured: by the drop as measured; significant: unless chance may do it; proven: unless the interval "
        "shows that it is small enough.",
    ),
]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML there too.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the report there too.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def set_files(paths: Iterable[Path]) -> list[SetFile]:
    """The files, each with the customer that it is named for. Raises typer.BadParameter."""
    found: dict[Path, Path] = {}
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise typer.BadParameter(f"there is no *.jsonl in {path}")
        found |= {file.resolve(): file for file in files}
    files_read = []
    for file in found.values():
        try:
            text = file.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{file}: {error}") from None
        files_read.append(SetFile(str(file), file.name.partition(".")[0], text))
    return files_read


def cases_of(files: Iterable[SetFile]) -> list[Case]:
    """The cases. Raises typer.Exit (2), having said everything that is wrong with them."""
    try:
        return read_sets(files)
    except BadSet as error:
        for line in error.problems:
            say(line, style="red")
        raise typer.Exit(MISUSE) from None


def gate_of(text: str | None, judges: Judges, *, degraded: bool = False) -> Gate | None:
    """None: no gate. The fallback's answers are expected to be worse, and held up only where that is asked for."""
    if text == "off" or (text is None and degraded):
        return None
    try:
        points = POINTS if text is None else float(text)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise typer.BadParameter("a number from 0 to 100, or `off`", param_hint="--gate")
    return Gate(points, judges)


def print_json(facts: Any) -> None:
    """On stdout."""
    sys.stdout.write(json.dumps(facts, indent=2) + "\n")
