"""Findings as GitHub's workflow commands, which put them beside the lines of a pull request.

The form is that of ``@actions/core``: a message keeps no line break and no per cent sign, and a property no colon and
no comma either. GitHub shows ten of each kind and step; the log has all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gateway.policy.diagnostics import Diagnostic

_MESSAGE = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_MESSAGE, ":": "%3A", ",": "%2C"}


def in_github(env: Mapping[str, str]) -> bool:
    """Whether this runs as a step of GitHub Actions."""
    return env.get("GITHUB_ACTIONS") == "true"


def annotation(found: Diagnostic, root: Path) -> str:
    """One command. Paths are told from ``root``, the repository's folder, where they lie in it."""
    properties = {"file": _within(found.file, root), "title": f"policies: {found.key}" if found.key else "policies"}
    if found.line:
        properties |= {"line": str(found.line), "col": str(found.column)}
    said = ",".join(f"{name}={_escaped(value, _PROPERTY)}" for name, value in properties.items())
    message = f"{found.key}: {found.message}" if found.key else found.message
    hint = f" ({found.hint})" if found.hint else ""
    return f"::{found.severity} {said}::{_escaped(message + hint, _MESSAGE)}"


def _within(file: str, root: Path) -> str:
    # By its name and not resolved: a link in the repository is shown where it stands there.
    path = Path(os.path.normpath(Path.cwd() / file))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file


def _escaped(text: str, replacements: Mapping[str, str]) -> str:
    return "".join(replacements.get(character, character) for character in text)
