"""Blocks of YAML that differ in nothing but words: their shape is parsed once, and words are put in their places.

What is each customer's own (its name, the digests of its keys, its adapters) is mostly written alike. A *word* here is
a lower-case name after a blank or an opening bracket, or 64 hex digits at the end of a double-quoted text. In whatever
state YAML's lexer is, it takes the characters of a word alike: none begins or ends a token, and no escape and no
marker of a document can reach into one. Of plain words the value is text, as those are none that YAML has another value
for. So two blocks that differ in words are the same tokens. What may differ are columns and lengths: no block of YAML
can begin on a line after a word, so that no column counts, and a key may have 1024 characters, so that a shape has to
be read the same with the longest words. A property test holds what is made of shapes against what is read.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gateway.policy.source import WORDS

LONGEST: Final = 64
"""Characters of a word. A digest has so many."""
SHORT: Final = 8

_SPECIAL = "|".join(sorted(WORDS))
_WORD: Final = re.compile(
    # What stands before it is a part of the shape, and tells both kinds apart.
    r'(["\[{ ](?:sha256:)?)'
    r'((?<=[":])[0-9a-f]{64}(?=")'
    rf"|(?<![\":])(?!(?:{_SPECIAL})\b)[a-z][a-z0-9_-]{{0,{LONGEST - 1}}}+(?=[\n\]}},]|: | +#))"
)
_PREFIX: Final = "sha256:"

Shape = tuple[str, ...]
"""A block's text without its words, cut at both ends of each and of what stands before it."""

Parse = Callable[[str], tuple[Any, int]]
"""A block's value, and how many nodes it has. Raises where the block takes a closer look."""


class Differs(Exception):
    """It is not so that each word is just put in its place."""


def cut(block: str) -> tuple[Shape, Sequence[str]]:
    """Its shape and its words."""
    pieces = _WORD.split(block)
    words = pieces[2::3]
    del pieces[2::3]
    return tuple(pieces), words


class Template:
    """What blocks of ``shape`` come to; ``nodes``: how many each has. Raises Differs, and whatever ``parse`` raises."""

    def __init__(self, shape: Shape, parse: Parse) -> None:
        short, long = _stand_ins(shape, SHORT), _stand_ins(shape, LONGEST)
        one, self.nodes = parse(_whole(shape, short))
        other, _ = parse(_whole(shape, long))
        places = {both: number for number, both in enumerate(zip(short, long, strict=True))}
        self._pattern = _common(one, other, places)

    def filled(self, words: Sequence[str]) -> Any:
        """The value with these words. A part that holds none is the same object each time. Raises Differs."""
        pattern = self._pattern
        return pattern.filled(words) if isinstance(pattern, _Pattern) else pattern


class _Pattern(ABC):
    """Of a value that holds words."""

    __slots__ = ()

    @abstractmethod
    def filled(self, words: Sequence[str]) -> Any: ...


class _Word(_Pattern):
    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def filled(self, words: Sequence[str]) -> str:
        return words[self._number]


class _Digest(_Word):
    """With the prefix that was cut off."""

    __slots__ = ()

    def filled(self, words: Sequence[str]) -> str:
        return _PREFIX + words[self._number]


class _List(_Pattern):
    __slots__ = ("_items",)

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = tuple((item, isinstance(item, _Pattern)) for item in items)

    def filled(self, words: Sequence[str]) -> list[Any]:
        return [item.filled(words) if holds else item for item, holds in self._items]


class _Mapping(_Pattern):
    __slots__ = ("_items",)

    def __init__(self, items: Sequence[tuple[Any, Any]]) -> None:
        self._items = tuple((k, isinstance(k, _Pattern), v, isinstance(v, _Pattern)) for k, v in items)

    def filled(self, words: Sequence[str]) -> dict[str, Any]:
        found = {k.filled(words) if kh else k: v.filled(words) if vh else v for k, kh, v, vh in self._items}
        if len(found) < len(self._items):
            raise Differs  # by these words a key is there twice
        return found


def _stand_ins(shape: Shape, length: int) -> list[str]:
    """A word for each place, of its kind; no two are the same."""
    before = shape[1::2]
    return [
        f"{length:02x}{number:0{LONGEST - 2}x}" if one.endswith(('"', ":")) else f"w{number:0{length - 1}}"
        for number, one in enumerate(before)
    ]


def _whole(shape: Shape, words: Sequence[str]) -> str:
    pieces = list(shape)
    for number, word in enumerate(words):
        pieces[2 * number + 1] += word
    return "".join(pieces)


def _common(one: Any, other: Any, places: Mapping[tuple[str, str], int]) -> Any:
    """The value with patterns where both differ by their stand-ins. Raises Differs where they differ otherwise."""
    kind = type(one)
    if kind is str and type(other) is str and one != other:
        return _place(one, other, places)
    if kind is list and type(other) is list and len(one) == len(other):
        items = [_common(a, b, places) for a, b in zip(one, other, strict=True)]
        return _List(items) if any(isinstance(item, _Pattern) for item in items) else one
    if kind is dict and type(other) is dict and len(one) == len(other):
        both = zip(one.items(), other.items(), strict=True)
        pairs = [(_common(j, k, places), _common(a, b, places)) for (j, a), (k, b) in both]
        return _Mapping(pairs) if any(isinstance(part, _Pattern) for pair in pairs for part in pair) else one
    if repr(one) != repr(other):
        raise Differs
    return one


def _place(one: str, other: str, places: Mapping[tuple[str, str], int]) -> _Pattern:
    if (number := places.get((one, other))) is not None:
        return _Word(number)
    number = places.get((one.removeprefix(_PREFIX), other.removeprefix(_PREFIX)))
    if number is None or not (one.startswith(_PREFIX) and other.startswith(_PREFIX)):
        raise Differs  # a word is only a part of it
    return _Digest(number)
