"""What `failsoft backend command` and `launch` share: a box out of the policies, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from backend.box_plan import BoxToServe, UnknownBox, box_to_serve
from backend.objections import Objection
from backend.vllm_flags import Release
from gateway.policy.validate import read_folder

BoxName = Annotated[str, typer.Argument(metavar="BOX", help="A box of fleet.yaml, by its name.")]
Policies = Annotated[
    Path,
    typer.Option(
        "--policies", metavar="DIR", envvar="FAILSOFT_POLICIES", help="Folder with fleet.yaml and customers/."
    ),
]
DEFAULT_POLICIES = Path("policies")


def find_box(name: str, policies: Path, release: Release, *, here: bool = False) -> BoxToServe:
    """The box as the folder has it; ``here``: to run on this machine.

    Raises PolicyError, and BadParameter where there is no such box.
    """
    try:
        return box_to_serve(read_folder(policies), name, release, here=here)
    except UnknownBox as error:
        raise typer.BadParameter(str(error), param_hint="BOX") from None


def show_objections(name: str, found: Iterable[Objection]) -> None:
    """One line each, on stderr."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for one in found:
        line = Text(f"{name}: ", style="bold")
        line.append(one.severity, style="red" if one.severity == "error" else "yellow")
        line.append(f": {one.about} {one.message}", style="none")
        if one.hint:
            line.append(f" ({one.hint})", style="cyan")
        console.print(line)
