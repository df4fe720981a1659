"""Pydantic's validation errors in the words of people who edit YAML.

No message repeats what was written, only what kind of value it was: it might have been a secret.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.policy.diagnostics import Finding, Location, Part, meant, nearest
from gateway.policy.models import STEP_TAGS
from gateway.policy.source import Ambiguous, describe

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "date_type": "a day, such as 2027-01-01",
    "date_from_datetime_parsing": "a day, such as 2027-01-01",
    "date_parsing": "a day, such as 2027-01-01",
    "dict_type": "a mapping",
    "list_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def findings(error: ValidationError, model: type[BaseModel], part: Part) -> Iterator[Finding]:
    """One finding for each of Pydantic's errors, but for empty values: the reader of the file has named those."""
    for details in error.errors(include_url=False):
        if details["input"] is None and details["type"] != "missing":
            continue
        loc = details["loc"]
        message, hint = _words(details, model)
        yield Finding(part, _place(loc), message, hint)


def _place(loc: Location) -> Location:
    """Pydantic's location without the tags of unions and the marks of mapping keys."""
    return tuple(part for part in loc if not (isinstance(part, str) and (_is_tag(part) or part == "[key]")))


def _is_tag(part: str | int) -> bool:
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def _words(details: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    kind, loc = details["type"], details["loc"]
    value, context = details["input"], details.get("ctx", {})
    if kind == "missing":
        return "is missing", ""
    if kind == "extra_forbidden":
        return _unknown_key(str(loc[-1]), model, loc[:-1])
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "literal_error":
        near = nearest(value, _literals(context)) if isinstance(value, str) else None
        return f"has to be {context['expected']}", f"did you mean {near}?" if near else _quote_hint(value)
    if kind in _WANTED:
        return f"has to be {_WANTED[kind]}, and this is {describe(value)}", _hint_for(kind, value)
    if kind in ("step_kind", "api_key", "alias"):
        return details["msg"], _quote_hint(value) if kind != "step_kind" else _step_hint(value)
    if kind in ("greater_than_equal", "less_than_equal"):
        return (f"has to be at least {context['ge']}" if "ge" in context else f"can be at most {context['le']}"), ""
    if kind == "too_short":
        return "is empty, and needs at least one entry", ""
    return details["msg"][:1].lower() + details["msg"][1:], ""


def _unknown_key(key: str, model: type[BaseModel], where: Location) -> tuple[str, str]:
    known = known_keys(model, where)
    step = next((name for name, tag in STEP_TAGS.items() if where and where[-1] == tag), None)
    if step is not None and nearest(key, known) is None:
        if key in STEP_TAGS:
            return "unknown key", f"this is a {step} step already: make {key} a step of its own"
        others = {name: known_keys(model, (*where[:-1], tag)) for name, tag in STEP_TAGS.items() if name != step}
        takers = [name for name, keys in others.items() if key in keys]
        if takers:
            return "unknown key", f"only a {takers[0]} step takes it, and this is a {step} step"
    elsewhere = None if key in known or nearest(key, known) is not None else _home(key, model)
    return "unknown key", elsewhere or meant(key, known, noun="key to choose from here")


def _home(key: str, model: type[BaseModel]) -> str | None:
    """Where in the file a key that is in the wrong place belongs."""
    if key in model.model_fields:
        return f"{key} belongs at the top of the file"
    for name in model.model_fields:
        if key in known_keys(model, (name,)):
            return f"{key} belongs in {name}: {{{key}: …}}"
    return None


def _literals(context: dict[str, Any]) -> list[str]:
    return [word.strip("' ") for word in str(context["expected"]).replace(" or ", ", ").split(",")]


def _hint_for(kind: str, value: object) -> str:
    if isinstance(value, Ambiguous):
        hints = {"string_type": "put it in quotes", "int_type": "write it as a plain decimal number"}
        return hints.get(kind, "")
    return _quote_hint(value) if kind == "string_type" else ""


def _quote_hint(value: object) -> str:
    """For scalars that were meant as text."""
    return "" if isinstance(value, str | list | dict) else "put it in quotes"


def _step_hint(value: object) -> str:
    if not isinstance(value, dict):
        return 'for example: provider: hosted, or base: {}, or static: "text"'
    near = next((near for key in value if (near := nearest(str(key), ("provider", "base", "static")))), None)
    return f"did you mean {near}?" if near else ""


def known_keys(model: type[BaseModel], loc: Location) -> tuple[str, ...]:
    """The keys of the mapping that ``loc``, a location as Pydantic gives it, leads to from ``model``."""
    found: Any = model
    for part in loc:
        found = bare(found)
        if _is_tag(part):
            found = next((option for option in typing.get_args(found) if tag_of(option) == part), None)
        elif isinstance(found, type) and issubclass(found, BaseModel):
            info = next((info for key, info in fields(found) if key == part), None)
            found = info.annotation if info is not None else None
        else:
            args = typing.get_args(found)
            found = args[-1] if args else None
    found = bare(found)
    return tuple(key for key, _ in fields(found)) if isinstance(found, type) and issubclass(found, BaseModel) else ()


def fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """A model's fields by the keys they have in a file: `for` cannot be the name of an attribute."""
    return ((info.alias or name, info) for name, info in model.model_fields.items())


def bare(annotation: Any) -> Any:
    """Without ``Annotated`` and ``| None``."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
            options = [option for option in typing.get_args(annotation) if option is not type(None)]
            if len(options) != 1:
                return annotation
            annotation = options[0]
        else:
            return annotation


def tag_of(option: Any) -> str | None:
    """That of one option of a union."""
    metadata = getattr(option, "__metadata__", ())
    return next((item.tag for item in metadata if isinstance(item, Tag)), None)
