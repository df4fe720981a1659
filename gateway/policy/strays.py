"""Files and folders that look like policies and would be passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gateway.policy.diagnostics import Diagnostic, Severity, nearest

FLEET = "fleet.yaml"
DEFAULTS = "defaults.yaml"
CUSTOMERS = "customers"


def strays(folder: Path) -> Iterator[Diagnostic]:
    """Those in a folder of policies. Raises OSError."""
    for entry in _visible(folder):
        if entry.is_dir():
            if entry.name != CUSTOMERS and nearest(entry.name, (CUSTOMERS,)) is not None:
                yield _unread(entry, f"did you mean {CUSTOMERS}/?", "warning")
        elif entry.name.endswith(".yml"):
            yield _unread(entry, "rename it to .yaml")
        elif entry.name.endswith(".yaml") and entry.name not in (FLEET, DEFAULTS):
            near = nearest(entry.name.removesuffix(".yaml"), ("fleet", "defaults"))
            hint = f"customers are in {CUSTOMERS}/" if near is None else f"did you mean {near}.yaml?"
            yield _unread(entry, hint, "warning")
    for entry in _visible(folder / CUSTOMERS):
        # First by its name: there may be thousands, and if they are links to look at one takes a system call.
        if entry.name.endswith(".yaml"):
            continue
        if entry.name.endswith(".yml"):
            yield _unread(entry, "rename it to .yaml")
        elif entry.is_dir():
            for path in (path for path in Path(entry).rglob("*.y*ml") if path.suffix in (".yaml", ".yml")):
                hint = f"move it to {CUSTOMERS}/{path.stem}.yaml"
                yield Diagnostic(str(path), 0, 0, "", "is not read", hint, "warning")


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """All but what is hidden, such as the folders in which Kubernetes keeps a ConfigMap's files."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.name[0] != "."]


def _unread(entry: os.DirEntry[str], hint: str, severity: Severity = "error") -> Diagnostic:
    return Diagnostic(entry.path, 0, 0, "", "is not read", hint, severity)
