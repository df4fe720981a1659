"""A YAML file as nodes that know their place.

YAML is read by libyaml, event by event, so that hostile or broken input is refused at the first excess: nesting,
size and what aliases expand to are all bounded. Scalars follow YAML 1.1 where that is what people mean (``yes`` is a
boolean, ``2027-01-01`` a day); forms on which YAML 1.1 and 1.2 disagree about the value, such as ``010`` and
``1:30``, become :class:`Ambiguous` and are refused wherever they stand.
"""

from __future__ import annotations

import codecs
import datetime as dt
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

MAX_BYTES = 1 << 20
PIECE_BYTES = 1 << 14
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Nodes of one file, with what aliases stand for counted in full: bounds a "billion laughs"."""

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
WORDS = frozenset({"null", *_BOOLEANS})
"""Plain scalars of letters that are not text."""
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,99})")
_FLOAT = re.compile(
    r"[-+]?[0-9][0-9_]{0,30}\.[0-9_]{0,30}|[-+]?\.(?=_*[0-9])[0-9_]{1,30}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_AMBIGUOUS = (
    (re.compile(r"[-+]?0[0-9_]+"), "an octal number in YAML 1.1"),
    (re.compile(r"[-+]?0[xob][0-9a-fA-F_]+"), "a number in another base than ten"),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"),
        "a base-60 number in YAML 1.1",
    ),
    (re.compile(r"[-+]?(?:[0-9][0-9_]*)?\.?[0-9_]+[eE][-+]?[0-9]+"), "a number with an exponent"),
    (re.compile(r"\d{4}-\d\d?-\d\d?(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d.*"), "a point in time"),
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CONTROL_BYTES = bytes(one for one in range(128) if _CONTROL.match(chr(one)))
_STRING_TAGS = {"!", "tag:yaml.org,2002:str"}


class SourceError(ValueError):
    """The file cannot be read as one YAML document. ``line`` and ``column`` count from 1, 0 for the file as a whole."""

    def __init__(self, message: str, line: int = 0, column: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """A plain scalar whose value depends on who reads it. No model accepts it."""

    why: str


@dataclass(slots=True)
class Entry:
    """One key of a mapping and its value, with the key's place."""

    line: int
    column: int
    node: Node


@dataclass(slots=True)
class Node:
    """A scalar with its ``text``, a list or a mapping. ``size`` and ``depth`` count all that is under it."""

    line: int
    column: int
    value: object
    text: str = ""
    size: int = 1
    depth: int = 1

    def plain(self) -> object:
        """The bare Python value."""
        if isinstance(self.value, dict):
            return {key: entry.node.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, key: str | int) -> Entry | None:
        """The entry of a mapping, or the item of a list."""
        if isinstance(self.value, dict):
            found = self.value.get(key)
            return found if isinstance(found, Entry) else None
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            node = self.value[key]
            return Entry(node.line, node.column, node)
        return None


@dataclass(slots=True)
class Problem:
    """Something wrong with a file that still has a shape."""

    line: int
    column: int
    at: tuple[str | int, ...]
    message: str
    hint: str = ""


@dataclass(slots=True)
class Document:
    """The root node (None: nothing but comments) and all problems found on the way."""

    root: Node | None
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class _Frame:
    node: Node
    anchor: str | None
    at: tuple[str | int, ...]
    key: tuple[str, int, int] | None = None


def read_bounded(path: Path) -> bytes:
    """A file's content, or as much of it as is too much. Raises OSError."""
    # Bare calls of the system take half the time that a file object does, and there may be thousands of files.
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = b""
        while len(raw) <= MAX_BYTES and (more := os.read(opened, PIECE_BYTES)):
            raw += more
        return raw
    finally:
        os.close(opened)


def decode(raw: bytes) -> str:
    """The text of a file. Raises SourceError when it is too large, not UTF-8 or holds control characters."""
    if len(raw) > MAX_BYTES:
        raise SourceError(f"the file is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        raise SourceError("the file is not UTF-8 text", *_place(before)) from None
    # In UTF-8 their bytes are those characters and nothing else, and to look for bytes takes a tenth of the time.
    if len(raw.translate(None, _CONTROL_BYTES)) < len(raw) and (found := _CONTROL.search(text)) is not None:
        raise SourceError("the file holds a control character", *_place(text[: found.start()]))
    return text


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def read_yaml(text: str) -> Document:
    """One YAML document. Raises SourceError where the text has no usable shape."""
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not YAML: {error.problem or 'it cannot be read'}"
        raise SourceError(message, mark.line + 1 if mark else 0, mark.column + 1 if mark else 0) from None
    except yaml.YAMLError:
        raise SourceError("is not YAML: it holds a character that YAML does not allow") from None
    return Document(reader.root, reader.problems)


def resolve_scalar(text: str) -> object:
    """The value of a plain (unquoted) scalar."""
    if "A" <= text[:1] <= "z" and text.lower() not in WORDS:
        return text  # by far the most; all that is not text begins otherwise, or is one of few words
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text.lower() in _BOOLEANS and text in (text.lower(), text.upper(), text.capitalize()):
        return _BOOLEANS[text.lower()]
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(
            text.replace("_", "")
            .replace(".inf", "inf")
            .replace(".Inf", "inf")
            .replace(".INF", "inf")
            .replace(".nan", "nan")
            .replace(".NaN", "nan")
            .replace(".NAN", "nan")
        )
    if _DAY.fullmatch(text):
        try:
            return dt.date.fromisoformat(text)
        except ValueError:
            return Ambiguous("a day that the calendar does not have")
    for shape, why in _AMBIGUOUS:
        if shape.fullmatch(text):
            return Ambiguous(why)
    return text


class _Reader:
    """Builds the tree from events, without recursion."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise SourceError("holds a second YAML document", line, column, "one document a file")
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event, line, column)
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line, column)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event, line, column)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            frame = self._stack.pop()
            if frame.anchor is not None:
                self._anchors[frame.anchor] = frame.node
            self._place(frame.node, line, column)

    def _at(self) -> tuple[str | int, ...]:
        if not self._stack:
            return ()
        frame = self._stack[-1]
        if isinstance(frame.node.value, list):
            return (*frame.at, len(frame.node.value))
        return (*frame.at, frame.key[0]) if frame.key is not None else frame.at

    def _problem(self, line: int, column: int, message: str, hint: str = "") -> None:
        self.problems.append(Problem(line, column, self._at(), message, hint))

    def _count(self, nodes: int, line: int, column: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise SourceError("holds too many values, counting what its aliases stand for", line, column)

    def _alias(self, event: yaml.AliasEvent, line: int, column: int) -> None:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            raise SourceError("an alias that refers to nothing complete before it", line, column)
        if len(self._stack) + node.depth > MAX_DEPTH:
            raise SourceError("is nested too deeply", line, column)
        self._count(node.size, line, column)
        self._place(node, line, column)

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int, column: int) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise SourceError("is nested too deeply", line, column)
        if self._stack and isinstance(self._stack[-1].node.value, dict) and self._stack[-1].key is None:
            raise SourceError("a key has to be a simple name", line, column)
        if event.tag is not None and event.tag != "!":
            self._problem(line, column, "YAML tags are not used in policies", "leave the !tag out")
        self._count(1, line, column)
        node = Node(line, column, {} if isinstance(event, yaml.MappingStartEvent) else [])
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(node, event.anchor, self._at()))

    def _scalar(self, event: yaml.ScalarEvent, line: int, column: int) -> None:
        self._count(1, line, column)
        value: object = event.value
        if event.tag is None:
            value = resolve_scalar(event.value) if event.implicit[0] else event.value
        elif event.tag not in _STRING_TAGS:
            self._problem(line, column, "YAML tags are not used in policies", "leave the !tag out")
        node = Node(line, column, value, event.value)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._place(node, line, column)

    def _place(self, node: Node, line: int, column: int) -> None:
        """Put a finished node where it belongs. ``line`` and ``column``: of this use, which may be an alias."""
        if not self._stack:
            self.root = node if node.value is not None else None
            return
        frame = self._stack[-1]
        parent = frame.node
        if isinstance(parent.value, dict) and frame.key is None:
            frame.key = (self._key(node, line, column), line, column)
            return
        if node.value is None:
            empty_step = frame.key is not None and frame.key[0] == "base"
            hint = "write base: {}" if empty_step else "give it one, or take the key out"
            _, key_line, key_column = frame.key or ("", line, column)
            self._problem(key_line, key_column, "has no value", hint)
        parent.size += node.size
        parent.depth = max(parent.depth, node.depth + 1)
        if isinstance(parent.value, list):
            parent.value.append(node)
        elif isinstance(parent.value, dict) and frame.key is not None:
            name, key_line, key_column = frame.key
            if name in parent.value:
                first = parent.value[name]
                self._problem(key_line, key_column, "this key is there twice", f"first in line {first.line}")
            else:
                parent.value[name] = Entry(key_line, key_column, node)
            frame.key = None

    def _key(self, node: Node, line: int, column: int) -> str:
        if isinstance(node.value, str):
            if node.value == "<<":
                self._problem(line, column, "merge keys are not used in policies", "write the keys out")
            return node.value
        if isinstance(node.value, dict | list):
            raise SourceError("a key has to be a simple name", line, column)
        self._problem(line, column, f"this key is {describe(node.value)}, not text", "put it in quotes")
        return node.text


def describe(value: object) -> str:
    """What YAML takes a value for, in words."""
    if isinstance(value, Ambiguous):
        return value.why
    if value is None:
        return "empty"
    names = {bool: "a boolean (yes, no, on, off, true, false)", int: "a number", float: "a number", dt.date: "a date",
             str: "text", list: "a list", dict: "a mapping"}  # fmt: skip
    return names.get(type(value), "something else")
