"""Whose API keys the load test asks with.

A YAML file: ``acme: fs-…``, or ``acme: {key: "${ACME_KEY}", model: customer_acme_v3}``. ``${NAME}`` is an environment
variable, so that the file itself can be without secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from backend.traffic.read import TrafficError
from gateway.policy.diagnostics import Diagnostic, key_path
from gateway.policy.keys import Keys
from gateway.policy.model_errors import findings
from gateway.policy.names import REFERENCE_PATTERN, ModelName, Name, Text, referenced
from gateway.policy.source import MAX_BYTES, SourceError, decode, read_yaml
from gateway.policy.validate import locate


@dataclass(frozen=True, slots=True)
class Credential:
    """One customer's key, and the model to ask for where the file says it."""

    key: str = field(repr=False)
    model: str | None = None


class _Entry(Keys):
    key: Text
    model: ModelName | None = None


def _bare_key(value: Any) -> Any:
    return {"key": value} if isinstance(value, str) else value


class _File(Keys):
    customers: Annotated[dict[Name, Annotated[_Entry, BeforeValidator(_bare_key)]], Field(min_length=1)]


def read_keys(path: Path, environment: Mapping[str, str]) -> dict[str, Credential]:
    """All of a file, by customer, in its order. Raises TrafficError, which repeats no key."""

    def wrong(message: str, hint: str = "", line: int = 0, column: int = 0, key: str = "") -> Diagnostic:
        return Diagnostic(str(path), line, column, key, message, hint)

    try:
        with path.open("rb") as opened:
            document = read_yaml(decode(opened.read(MAX_BYTES + 1)))
    except OSError as error:
        raise TrafficError(wrong(f"cannot be read: {error.strerror or error}")) from None
    except SourceError as error:
        raise TrafficError(wrong(error.message, error.hint, error.line, error.column)) from None
    if document.problems:
        raise TrafficError(*(wrong(p.message, p.hint, p.line, p.column, key_path(p.at)) for p in document.problems))
    if document.root is None:
        raise TrafficError(wrong("is empty", "write CUSTOMER: KEY, a line each"))
    try:
        entries = _File.model_validate({"customers": document.root.plain()}).customers
    except ValidationError as error:
        found = [(one, one.at[1:]) for one in findings(error, _File, 0)]  # without our own "customers"
        raise TrafficError(
            *(wrong(one.message, one.hint, *locate(document.root, at), key=key_path(at)) for one, at in found)
        ) from None
    credentials, unset = {}, []
    for name, entry in entries.items():
        key = entry.key
        if _is_reference(key):
            key = environment.get(referenced(key), "")
            if not key:
                place = locate(document.root, (name,))
                unset.append(wrong(f"refers to {referenced(entry.key)}, which is not set", "", *place, key=name))
        if not key.isascii() or not key.isprintable():
            unset.append(wrong("is not usable as a key: it holds other than printable ASCII", key=name))
        credentials[name] = Credential(key, entry.model)
    if unset:
        raise TrafficError(*unset)
    return credentials


def _is_reference(key: str) -> bool:
    return re.fullmatch(REFERENCE_PATTERN, key) is not None
