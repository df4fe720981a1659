"""Tool arguments in a form in which two spellings of the same JSON are equal.

Key order and white space do not count, nor do the forms of a number (``1``, ``1.0``, ``1e0``, ``-0``): numbers are
compared as the doubles that readers make of them, so that ``0.1`` is ``0.10000000000000001``, but for integers beyond
2**53, which may be identifiers and are compared exactly. Booleans are no numbers, and ``"1"`` is none. A key that
stands twice in an object is an error: which of its values holds, RFC 8259 leaves to the reader. Where it is wished, a
string is taken in the spelling of the enum that its schema declares there.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

_DEEPEST: Final = 64
"""Levels of ``$ref``, ``anyOf``… that are followed at one place: schemas may refer to themselves."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as sign, digits without zeros at either end, and exponent."""

    negative: bool
    digits: str
    exponent: int

    def __str__(self) -> str:
        """As people write it."""
        value = Decimal((int(self.negative), tuple(map(int, self.digits)) or (0,), self.exponent))
        return f"{value:f}" if -20 < self.exponent < 20 else str(value)


class KeyGivenTwice(ValueError):
    """What the JSON of an object says is not certain, though every parser reads it."""


def parse(text: str) -> Any:
    """JSON with numbers as :class:`Number`. Raises ValueError for what is none, as ``NaN`` and keys given twice are."""
    try:
        return json.loads(
            text, parse_int=_number, parse_float=_number, parse_constant=_no_number, object_pairs_hook=_object
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def normal_form(value: Any, schema: Any = None, *, enum_case: bool = True) -> Any:
    """``value``, from :func:`parse`, as something to compare with ``==``.

    ``schema``: the tool's ``parameters``. ``enum_case`` False: a string that differs from a declared enum value only in
    case is that value; one that fits several is left as it is.
    """
    if enum_case or not isinstance(schema, Mapping):
        return value
    return _folded(value, (schema,), schema)


def _folded(value: Any, schemas: tuple[Any, ...], root: Mapping[str, Any]) -> Any:
    known = [one for schema in schemas for one in _alternatives(schema, root)]
    if isinstance(value, str):
        return _declared(value, known)
    if isinstance(value, dict):
        return {key: _folded(item, tuple(_of_property(key, known)), root) for key, item in value.items()}
    if isinstance(value, list):
        return [_folded(item, tuple(_of_item(at, known)), root) for at, item in enumerate(value)]
    return value


def _declared(value: str, schemas: list[Mapping[str, Any]]) -> str:
    listed = [one.get("enum") for one in schemas] + [[one["const"]] for one in schemas if "const" in one]
    declared = {entry for enum in listed if isinstance(enum, list) for entry in enum if isinstance(entry, str)}
    if value in declared:
        return value
    alike = [entry for entry in declared if entry.casefold() == value.casefold()]
    return alike[0] if len(alike) == 1 else value


def _of_property(key: str, schemas: list[Mapping[str, Any]]) -> Iterator[Any]:
    for schema in schemas:
        properties = schema.get("properties")
        if isinstance(properties, Mapping) and key in properties:
            yield properties[key]
        else:
            yield schema.get("additionalProperties")


def _of_item(at: int, schemas: list[Mapping[str, Any]]) -> Iterator[Any]:
    for schema in schemas:
        first = schema.get("prefixItems")
        yield first[at] if isinstance(first, list) and at < len(first) else schema.get("items")


def _alternatives(schema: Any, root: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The schema and all that it refers to at this very place."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return
    yield schema
    if isinstance(reference := schema.get("$ref"), str):
        yield from _alternatives(_referred(reference, root), root, depth + 1)
    for keyword in ("anyOf", "oneOf", "allOf"):
        if isinstance(several := schema.get(keyword), list):
            for one in several:
                # Branches may each refer back to the root: a few levels of those are all that schemas of tools have.
                yield from _alternatives(one, root, depth + 8)


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    """What a reference within the schema (``#/$defs/unit``) points at."""
    if not reference.startswith("#"):
        return None
    found: Any = root
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found


def _number(text: str) -> Number:
    try:
        sign, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:
        raise ValueError(f"a number beyond all bounds: {text[:40]}") from None
    if not isinstance(exponent, int):
        raise ValueError(f"no number: {text[:40]}")
    found = _stripped(sign, digits, exponent)
    if found.exponent >= 0 and not _within_doubles(found):
        return found
    double = float(text)
    if math.isinf(double):
        return found
    # repr is the shortest decimal that is this double: one form of all that are.
    sign, digits, exponent = Decimal(repr(double)).as_tuple()
    return _stripped(sign, digits, int(exponent))


def _stripped(sign: int, digits: tuple[int, ...], exponent: int) -> Number:
    written = "".join(map(str, digits)).lstrip("0")
    kept = written.rstrip("0")
    if not kept:
        return Number(negative=False, digits="", exponent=0)
    return Number(bool(sign), kept, exponent + len(written) - len(kept))


def _within_doubles(integer: Number) -> bool:
    """Whether it is one of those that a double has, each and every one."""
    # Of few digits, as a power of ten may be of any size.
    return len(integer.digits) + integer.exponent <= 16 and int(integer.digits or "0") * 10**integer.exponent <= 2**53


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise KeyGivenTwice(f"the key {json.dumps(twice, ensure_ascii=False)[:80]} stands twice in one object")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
