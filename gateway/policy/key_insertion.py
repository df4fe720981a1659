"""Puts one more API key into a customer's file, and leaves all else of it as it was written. Pure."""

from __future__ import annotations

from gateway.policy.source import Node, SourceError, read_yaml

KEYS = "api_keys"


class NoPlace(ValueError):
    """The file is written in a way that this cannot be done safely in; the entry has to be pasted by hand."""


def with_key(text: str, entry: str) -> str:
    """``text`` with ``entry``, one line of YAML, among its ``api_keys``: last of a block, first in brackets.

    What comes out is read again, and has to say what the file said and the new key, and nothing else. Raises NoPlace.
    """
    before = _root(text)
    listed, items = _keys(before)
    lines = text.splitlines(keepends=True)
    if _in_brackets(lines, listed):
        found = _into_brackets(lines, listed, entry)
    elif items:
        found = _below(lines, items, entry)
    else:
        raise NoPlace(f"{KEYS} has no place for a key")
    _proven(before, _root(found), entry)
    return found


def _root(text: str) -> Node:
    try:
        document = read_yaml(text)
    except SourceError as error:
        raise NoPlace(f"the file {error.message}") from None
    if document.root is None or document.problems or not isinstance(document.root.value, dict):
        raise NoPlace("the file has errors")
    return document.root


def _keys(root: Node) -> tuple[Node, list[Node]]:
    entry = root.child(KEYS)
    if entry is None or not isinstance(entry.node.value, list):
        raise NoPlace(f"the file has no list of {KEYS}")
    return entry.node, entry.node.value


def _in_brackets(lines: list[str], listed: Node) -> bool:
    return lines[listed.line - 1][listed.column - 1 :].startswith("[")


def _into_brackets(lines: list[str], listed: Node, entry: str) -> str:
    line = lines[listed.line - 1]
    more = ", " if isinstance(listed.value, list) and listed.value else ""
    lines[listed.line - 1] = f"{line[: listed.column]}{entry}{more}{line[listed.column :]}"
    return "".join(lines)


def _below(lines: list[str], items: list[Node], entry: str) -> str:
    first = lines[items[0].line - 1]
    indent = first[: items[0].column - 1].rstrip()
    if indent.strip() != "-":
        raise NoPlace(f"{KEYS} is neither a plain block nor in brackets")
    last = _last_line(items[-1])
    if not lines[last - 1].endswith("\n"):
        lines[last - 1] += "\n"
    end = "\r\n" if lines[last - 1].endswith("\r\n") else "\n"
    lines.insert(last, f"{indent} {entry}{end}")
    return "".join(lines)


def _last_line(node: Node) -> int:
    if isinstance(node.value, dict):
        return max((_last_line(entry.node) for entry in node.value.values()), default=node.line)
    if isinstance(node.value, list):
        return max((_last_line(item) for item in node.value), default=node.line)
    return node.line


def _proven(before: Node, after: Node, entry: str) -> None:
    old, new = before.plain(), after.plain()
    added = read_yaml(entry).root
    if not isinstance(old, dict) or not isinstance(new, dict) or added is None:
        raise NoPlace("the file has errors")
    key = added.plain()
    keys = new.get(KEYS)
    if not isinstance(keys, list) or key not in keys:
        raise NoPlace(f"the key would not be among {KEYS}")
    keys.remove(key)
    if new != old:
        raise NoPlace("more than the keys would change")
