"""A YAML file that is as most files are, as bare values, without places and in a third of the time.

For folders of thousands of customers. Where anything is out of the ordinary, or will have to be pointed at, the file is
read again with :mod:`gateway.policy.source`, which alone says what is wrong.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from gateway.policy.block_shapes import Differs, Shape, Template, cut
from gateway.policy.source import MAX_DEPTH, MAX_NODES, Ambiguous, resolve_scalar


class _NotQuick(Exception):
    """This file has to be read with care."""


_NO_KEY = object()

_BEGINS = re.compile(r"\n([A-Za-z_][A-Za-z0-9_]*)(?=:)")
_COMMENTS = re.compile(r"(?:\n *(?:#.*)?)*")
_BETWEEN = ("---", "...", "%")
"""What stands between documents."""
_BREAKS = ("\x85", "\u2028", "\u2029", "\ufeff")
"""Line breaks of other kinds than ``\\n`` and ``\\r``, and a mark that may be none."""


def read_quickly(text: str) -> Any:
    """What ``read_yaml(text).root.plain()`` is, where there would be no problem and a root; None for all else."""
    try:
        return _read(yaml.CSafeLoader(text))[0]
    except (_NotQuick, yaml.YAMLError):
        return None


class QuickReader:
    """:func:`read_quickly` for many files that are alike: a block that was read before is not read again, and one that
    differs from others in words only is made of their shape (:mod:`gateway.policy.block_shapes`).

    A block is what a key at the beginning of a line begins, up to the next one; customers share most of theirs. Where
    there may be more to the layout than that, a file is read as a whole. What was read has to be left as it is.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, int]] = {}
        self._seen: set[int] = set()
        """By their hashes: to keep each customer's own blocks takes half as long as to read them. One that is taken for
        another is learned a file earlier."""
        self._shapes: dict[Shape, Template | None] = {}
        """None where blocks of a shape have to be read each."""
        self._seen_shapes: set[Shape] = set()

    def read(self, text: str) -> Any:
        """What :func:`read_quickly` says of it."""
        before, *rest = _BEGINS.split("\n" + text)
        keys, rests = rest[::2], rest[1::2]
        if not keys or not _COMMENTS.fullmatch(before) or len(set(keys)) < len(keys) or _is_unusual(text):
            return read_quickly(text)
        try:
            blocks = [f"{key}{rest}\n" for key, rest in zip(keys, rests, strict=True)]
            blocks[-1] = blocks[-1][:-1]
            return self._read(keys, blocks)
        except (_NotQuick, yaml.YAMLError):
            return read_quickly(text)

    def _read(self, keys: list[str], blocks: list[str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        nodes = 1
        own: dict[str, str] = {}
        for key, block in zip(keys, blocks, strict=True):
            known = self._known.get(block)
            if known is None:
                known = self._again(key, block) if hash(block) in self._seen else self._shaped(key, block)
            if known is None:
                own[key] = block
                values[key] = None  # keeps its place
            else:
                values[key] = known[0]
                nodes += known[1]
        if own:
            found, count = _entries(list(own), "".join(own.values()))
            values.update(zip(own, found, strict=True))
            nodes += count
        if nodes > MAX_NODES:
            raise _NotQuick
        return values

    def _again(self, key: str, block: str) -> tuple[Any, int]:
        """Of a block that is there for the second time: from now on it is known."""
        found = self._known[block] = _entry(key, block)
        return found

    def _shaped(self, key: str, block: str) -> tuple[Any, int] | None:
        """Of a new block, where blocks like it are known."""
        self._seen.add(hash(block))
        shape, words = cut(block)
        if shape not in self._shapes:
            if shape not in self._seen_shapes:
                self._seen_shapes.add(shape)
                return None
            self._shapes[shape] = _template(key, shape)
        template = self._shapes[shape]
        try:
            return None if template is None else (template.filled(words), template.nodes)
        except Differs:
            return None


def _is_unusual(text: str) -> bool:
    """Whether lines may be others than they seem."""
    # Written out, as this is asked of each of thousands of files.
    if "\r" in text or "\n---" in text or "\n..." in text or "\n%" in text or text.startswith(_BETWEEN):
        return True
    return not text.isascii() and any(one in text for one in _BREAKS)


def _template(key: str, shape: Shape) -> Template | None:
    try:
        return Template(shape, lambda block: _entry(key, block))
    except (Differs, _NotQuick, yaml.YAMLError):
        return None


def _entry(key: str, block: str) -> tuple[Any, int]:
    (value,), nodes = _entries([key], block)
    return value, nodes


def _entries(keys: list[str], text: str) -> tuple[list[Any], int]:
    """The values of a mapping with just these keys, and how many nodes it has inside. Raises _NotQuick for any other.

    That each key was found where its block begins shows that no block goes on in the next one.
    """
    root, nodes = _read(yaml.CSafeLoader(text))
    if type(root) is not dict or list(root) != keys:
        raise _NotQuick
    return list(root.values()), nodes - 1


def _read(events: Any) -> tuple[Any, int]:
    """The root, and how many nodes there are.

    The loop is one function, and looks things up once, as it runs some 70 times for each customer.
    """
    take = events.get_event
    scalar, map_start, map_end = yaml.ScalarEvent, yaml.MappingStartEvent, yaml.MappingEndEvent
    list_start, list_end = yaml.SequenceStartEvent, yaml.SequenceEndEvent
    stack: list[tuple[Any, Any]] = []
    parent: Any = None
    key: Any = _NO_KEY
    root: Any = None
    nodes = documents = 0
    while True:
        event = take()
        kind = type(event)
        if kind is scalar:
            if event.tag is not None or event.anchor is not None:
                raise _NotQuick
            value = resolve_scalar(event.value) if event.implicit[0] else event.value
            nodes += 1
            if key is _NO_KEY and type(parent) is dict:
                if type(value) is not str or value == "<<" or value in parent:
                    raise _NotQuick
                key = value
                continue
            if value is None or type(value) is Ambiguous:
                raise _NotQuick
        elif kind is map_start or kind is list_start:
            nodes += 1
            if event.tag is not None or event.anchor is not None or len(stack) >= MAX_DEPTH or nodes > MAX_NODES:
                raise _NotQuick
            if key is _NO_KEY and type(parent) is dict:
                raise _NotQuick
            stack.append((parent, key))
            parent, key = {} if kind is map_start else [], _NO_KEY
            continue
        elif kind is map_end or kind is list_end:
            value = parent
            parent, key = stack.pop()
        elif kind is yaml.AliasEvent:
            raise _NotQuick
        elif kind is yaml.DocumentStartEvent:
            documents += 1
            if documents > 1:
                raise _NotQuick
            continue
        elif kind is yaml.StreamEndEvent:
            if nodes > MAX_NODES:
                raise _NotQuick
            return root, nodes
        else:
            continue
        if parent is None:
            root = value
        elif type(parent) is dict:
            parent[key] = value
            key = _NO_KEY
        else:
            parent.append(value)
