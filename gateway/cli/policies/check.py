"""`failsoft policies validate` and `schema`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway.cli.exit_codes import FOUND_WRONG
from gateway.cli.policies.annotations import annotation, in_github
from gateway.cli.policies.terms import AsJson, Folder, extent, print_json, read, show_diagnostics
from gateway.cli.speech import failure, say
from gateway.policy.compile import compile_policy
from gateway.policy.diagnostics import Diagnostic
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import schema_text


class Format(StrEnum):
    """How findings are told."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


def validate(
    directory: Folder,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="text, json, or github (annotations). Inside GitHub Actions it is github."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a folder, and name everything that is wrong with it. Exits with 1 where there is an error."""
    if as_json and form not in (None, Format.JSON):
        raise typer.BadParameter("--json and another --format exclude each other", param_hint="--format")
    policy_set, diagnostics = read(directory)
    if policy_set is not None:
        prove_compiles(policy_set)
    if as_json or form is Format.JSON:
        print_json(
            {
                "ok": policy_set is not None,
                "customers": len(policy_set.customers) if policy_set is not None else 0,
                "diagnostics": [msgspec.to_builtins(d) for d in diagnostics],
            }
        )
    else:
        if form is Format.GITHUB or (form is None and in_github(os.environ)):
            annotate(diagnostics)
        show_diagnostics(diagnostics)
        if policy_set is not None:
            say(extent(policy_set), style="green")
    if policy_set is None:
        raise typer.Exit(FOUND_WRONG)


def schema(
    write: Annotated[Path | None, typer.Option(help="Write it to this file instead of printing it.")] = None,
) -> None:
    """Print the JSON schema of the YAML files, which editors check and complete by."""
    if write is None:
        sys.stdout.write(schema_text())
        return
    try:
        write.write_text(schema_text(), "utf-8")
    except OSError as error:
        raise failure(f"{write} cannot be written: {error.strerror or error}", FOUND_WRONG) from None


def annotate(diagnostics: Sequence[Diagnostic]) -> None:
    """On stdout, where GitHub's runner looks for them."""
    root = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd())
    for found in diagnostics:
        sys.stdout.write(annotation(found, root) + "\n")


def prove_compiles(policy_set: PolicySet) -> None:
    """What does not compile is not to be written. References stay unresolved. Raises PolicyError."""
    if policy_set.proven:
        return
    compile_policy(policy_set, version=1, store_id="", created_s=0, env=None)
