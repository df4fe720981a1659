"""A YAML file that is as most files are, as bare values, without places and in a third of the time.

For folders of thousands of customers. Where anything is out of the ordinary, or will have to be pointed at, the file is
read again with :mod:`gateway.policy.source`, which alone says what is wrong.
"""

from __future__ import annotations

from typing import Any

import yaml

from gateway.policy.source import MAX_DEPTH, MAX_NODES, Ambiguous, resolve_scalar


class _NotQuick(Exception):
    """This file has to be read with care."""


_NO_KEY = object()


def read_quickly(text: str) -> Any:
    """What ``read_yaml(text).root.plain()`` is, where there would be no problem and a root; None for all else."""
    try:
        return _read(yaml.CSafeLoader(text))
    except (_NotQuick, yaml.YAMLError):
        return None


def _read(events: Any) -> Any:
    """The loop is one function, and looks things up once, as it runs some 70 times for each customer."""
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
            return root
        else:
            continue
        if parent is None:
            root = value
        elif type(parent) is dict:
            parent[key] = value
            key = _NO_KEY
        else:
            parent.append(value)
