"""A traffic file as ops write it: the mix, or everything that is wrong with it, with file, line and column."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from backend.traffic.mix import TrafficMix
from gateway.policy.diagnostics import Diagnostic, key_path
from gateway.policy.model_errors import findings
from gateway.policy.source import MAX_BYTES, SourceError, decode, read_yaml
from gateway.policy.validate import locate


class TrafficError(Exception):
    """A traffic file or a trace that cannot be used. ``diagnostics``: every finding."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("\n".join(str(one) for one in diagnostics))
        self.diagnostics = diagnostics


def read_mix(path: Path) -> TrafficMix:
    """The mix in the file at ``path``. Raises TrafficError."""
    try:
        with path.open("rb") as opened:
            return mix_from(decode(opened.read(MAX_BYTES + 1)), str(path))
    except OSError as error:
        raise TrafficError(Diagnostic(str(path), 0, 0, "", f"cannot be read: {error.strerror or error}")) from None
    except SourceError as error:
        raise TrafficError(Diagnostic(str(path), error.line, error.column, "", error.message, error.hint)) from None


def mix_from(text: str, name: str) -> TrafficMix:
    """The mix that ``text`` describes; ``name`` is its file's. Raises TrafficError, or SourceError if not YAML."""
    document = read_yaml(text)
    found = [Diagnostic(name, p.line, p.column, key_path(p.at), p.message, p.hint) for p in document.problems]
    values = document.root.plain() if document.root is not None else {}
    if not isinstance(values, dict):
        raise TrafficError(Diagnostic(name, 0, 0, "", "is not a mapping", "for example requests_per_minute: 600"))
    mix = None
    try:
        mix = TrafficMix.model_validate(values)
    except ValidationError as error:
        for one in findings(error, TrafficMix, 0):
            line, column = locate(document.root, one.at)
            found.append(Diagnostic(name, line, column, key_path(one.at), one.message, one.hint))
    if mix is None or found:
        raise TrafficError(*sorted(found, key=lambda one: (one.line, one.column)))
    return mix
