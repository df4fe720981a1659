"""`failsoft eval report`: what a run came to, worked out anew from its answers, and written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.evalgate.case import BadSet, Case, read_sets
from backend.evalgate.folder import BadFolder, read_answers, read_files, read_plan, write_whole
from backend.evalgate.gate import Gate, Judges
from backend.evalgate.junit import junit
from backend.evalgate.page import page
from backend.evalgate.result import Result, missing, result
from gateway.cli.eval.screen import show
from gateway.cli.eval.terms import (
    EnumCase,
    EnumCaseOption,
    GateOption,
    HtmlOption,
    JsonOption,
    JudgeOption,
    JunitOption,
    gate_of,
    print_json,
)
from gateway.cli.exit_codes import FOUND_WRONG, MISUSE, UNREACHABLE
from gateway.cli.speech import failure

RunFolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="The folder of `failsoft eval run --out`.")
]


def report(
    folder: RunFolderArgument,
    enum_case: EnumCaseOption = EnumCase.MATCH,
    gate: GateOption = None,
    judge: JudgeOption = Judges.MEASURED,
    junit_file: JunitOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run's answers again, without asking anybody: by another bound, or with enums in any case.

    Exits with 1 where the gate trips, with 2 where DIR holds no run, with 3 where answers are missing.
    """
    plan, cases = read_run(folder)
    decided = gate_of(gate, judge, degraded=plan["candidate"]["degraded"])
    found = of_folder(folder, plan, cases, gate=decided, enum_case=enum_case is EnumCase.MATCH)
    publish_files(folder, found, junit_file=junit_file, html=html)
    tell(found, as_json=as_json)


def read_run(folder: Path) -> tuple[dict[str, Any], list[Case]]:
    """A run's plan and its cases. Raises typer.Exit (2)."""
    try:
        plan = read_plan(folder)
        if plan.get("kind") != "run":
            raise BadFolder(f"{folder} holds no comparison of two paths")
        return plan, read_sets(read_files(folder, plan))
    except (BadFolder, BadSet) as error:
        raise failure(str(error), MISUSE) from None


def of_folder(
    folder: Path, plan: dict[str, Any], cases: list[Case], *, gate: Gate | None, enum_case: bool = True
) -> Result:
    """The result. Raises typer.Exit: 2 where the answers cannot be read, 3 where some are missing."""
    try:
        answers = read_answers(folder)
    except BadFolder as error:
        raise failure(str(error), MISUSE) from None
    if lacking := missing(cases, plan["sampling"]["samples"], answers):
        raise failure(
            f"{lacking} answers are missing in {folder}: run the same `failsoft eval run` again, it goes on",
            UNREACHABLE,
        )
    return result(plan, cases, answers, gate=gate, enum_case=enum_case)


def publish_files(folder: Path, found: Result, *, junit_file: Path | None, html: Path | None) -> None:
    """Write everything down, in the folder and where it was asked for. Raises typer.Exit (2)."""
    texts = {folder / "result.json": json.dumps(found.as_json(), indent=2)}
    texts |= dict.fromkeys(filter(None, (folder / "report.html", html)), page(found))
    texts |= dict.fromkeys(filter(None, (folder / "junit.xml", junit_file)), junit(found))
    for path, text in texts.items():
        try:
            write_whole(path, text)
        except OSError as error:
            raise failure(f"{path} cannot be written: {error}", MISUSE) from None


def tell(found: Result, *, as_json: bool) -> None:
    """On stdout. Raises typer.Exit (1) where the gate trips."""
    if as_json:
        print_json(found.as_json())
    else:
        show(found)
    if not found.passed:
        raise typer.Exit(FOUND_WRONG)
