"""What can be read of a file that has errors, so that all the rest is checked at once and not after they are mended.

A name stays known, however wrong what stands beside it is. What is not usable has a stand-in or is left out, and is a
gap: nothing is said of it twice, nor of what only follows from its absence.
"""

from __future__ import annotations

import datetime as dt
import operator
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, Discriminator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gateway.policy.diagnostics import Finding, Location, Part, Unfit, key_path, nearest
from gateway.policy.model_errors import bare, fields, tag_of

_Model = TypeVar("_Model", bound=BaseModel)


class Salvaged(NamedTuple, Generic[_Model]):
    """What was read, and what was not: each a place, with all beneath it."""

    model: _Model
    gaps: frozenset[Location]


class Gaps:
    """What could not be read, by file."""

    def __init__(self) -> None:
        self._of: dict[Part, frozenset[Location]] = {}

    def __bool__(self) -> bool:
        return any(self._of.values())

    def add(self, part: Part, gaps: Iterable[Location]) -> None:
        """These are in ``part``; ``()`` is all of it."""
        self._of[part] = self._of.get(part, frozenset()).union(gaps)

    def has(self, part: Part, at: Location) -> bool:
        """Whether ``at`` is not what the file says there."""
        return any(at[: len(gap)] == gap for gap in self._of.get(part, ()))

    def explain(self, finding: Finding) -> bool:
        """Whether ``finding`` may be there for no other reason."""
        return bool(self._of) and (
            self.has(finding.part, finding.at)
            or any(
                self.has(part, at) or any(gap[: len(at)] == at for gap in self._of.get(part, ()))
                for part, at in finding.given
            )
        )


def salvage(values: object, model: type[_Model], file: str, empty: Iterable[Location] = ()) -> Salvaged[_Model]:
    """What is readable of ``values``. ``file``: its name, which makes stand-ins unique; ``empty``: places that may have
    no value."""
    reader = _Reader(file)
    found: _Model = reader.mapping(model, values, ())
    reader.gaps.update(at for at in empty if _value(values, at) is None)
    return Salvaged(found, frozenset(reader.gaps))


def _value(values: object, at: Location) -> object:
    for part in at:
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self.gaps: set[Location] = set()

    def mapping(self, model: type[_Model], value: object, at: Location) -> _Model:
        """An instance, whatever ``value`` is."""
        given = value if isinstance(value, dict) else {}
        if given is not value:
            self.gaps.add(at)
        known = dict(fields(model))
        found: dict[str, Any] = {}
        for key, info in known.items():
            place = (*at, key)
            if key not in given:
                if info.is_required():
                    self.gaps.add(place)
                    found[key] = self._stand_in(_kind(info), None, place)
                continue
            read = self._read(_kind(info), given[key], place)
            # What may be left out is, where it is not usable.
            if info.is_required() or place not in self.gaps:
                found[key] = read
        for key in given.keys() - known.keys():
            # It was most likely meant for one that is not there.
            self.gaps.add((*at, nearest(key, known.keys() - given.keys()) or key))
        return model.model_construct(_fields_set=set(found), **found)

    def _read(self, kind: Any, value: object, at: Location) -> Any:
        """``value`` as ``kind``, or as near to it as can be."""
        try:
            return _adapter(kind).validate_python(value)
        except ValidationError:
            before = len(self.gaps)
            found = self._inside(_option(kind, value), value, at)
            if len(self.gaps) == before:
                self.gaps.add(at)  # each part is usable, and the whole is not
            return found

    def _inside(self, kind: Any, value: object, at: Location) -> Any:
        of = typing.get_origin(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, dict):
            return self.mapping(kind, value, at)
        if of is list and isinstance(value, list):
            (item,) = typing.get_args(kind)
            return [self._read(item, one, (*at, index)) for index, one in enumerate(value)]
        if of is dict and isinstance(value, dict):
            names, values = typing.get_args(kind)
            return {self._name(names, key, at): self._read(values, one, (*at, key)) for key, one in value.items()}
        self.gaps.add(at)
        return self._stand_in(kind, value, at)

    def _name(self, kind: Any, key: str, at: Location) -> str:
        try:
            _adapter(kind).validate_python(key)
        except ValidationError:
            self.gaps.add((*at, key))
            return Unfit(key)
        return key

    def _stand_in(self, kind: Any, value: object, at: Location) -> Any:
        """What nothing else is equal to, where it is a name that was not written."""
        kind = bare(kind)
        if (options := typing.get_args(kind)) and tag_of(options[0]) is not None:
            kind = bare(options[0])
        of = typing.get_origin(kind) or kind
        if of is str:
            return Unfit(value if isinstance(value, str) else f"\0{self._file}: {key_path(at)}")
        if of is typing.Literal:
            return typing.get_args(kind)[0]
        if isinstance(of, type) and issubclass(of, BaseModel):
            return self.mapping(of, None, at)
        scalars: dict[Any, Any] = {int: 1, float: 1.0, bool: False, dt.date: dt.date.max}
        return scalars[of] if of in scalars else of()


def _kind(info: FieldInfo) -> Any:
    """A field's type, with what else is asked of its value."""
    return operator.getitem(Annotated, (info.annotation, *info.metadata)) if info.metadata else info.annotation


def _option(kind: Any, value: object) -> Any:
    """Without ``Annotated`` and ``| None``; of a union with tags the option that ``value`` is meant as."""
    while typing.get_origin(kind) is Annotated:
        of, *metadata = typing.get_args(kind)
        discriminators = [one for one in metadata if isinstance(one, Discriminator)]
        if discriminators and callable(discriminators[0].discriminator):
            tag = discriminators[0].discriminator(value)
            return bare(next((option for option in typing.get_args(of) if tag_of(option) == tag), of))
        kind = of
    inner = bare(kind)
    return inner if inner is kind else _option(inner, value)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
