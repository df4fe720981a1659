"""The examples of a guide in Markdown: YAML files, parts of YAML files, and commands with what they print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WHOLE = re.compile(r"# (policies/\S+\.yaml)\n")
PART = re.compile(r"# in (policies/\S+\.yaml)\n")
WITHOUT = re.compile(r"# without in (policies/\S+\.yaml)\n")
KINDS: dict[Literal["whole", "part", "without"], re.Pattern[str]] = {"whole": WHOLE, "part": PART, "without": WITHOUT}
ANYTHING = "…"


@dataclass(frozen=True, slots=True)
class File:
    """A YAML file, some of its keys, or keys that it loses. ``line``: where it stands in the guide."""

    line: int
    path: str
    text: str
    kind: Literal["whole", "part", "without"]

    def become(self, before: str) -> str:
        """The file's text after the example, where it was ``before``."""
        if self.kind == "whole":
            return self.text
        keys = yaml.safe_load(self.text)
        found = yaml.safe_load(before)
        found = found | keys if self.kind == "part" else {key: found[key] for key in found if key not in keys}
        first = before.splitlines(keepends=True)[0]
        return (first if first.startswith("#") else "") + yaml.safe_dump(found, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True, slots=True)
class Command:
    """A command, how it exits, and what it prints: ``…`` stands for anything, in a line or for any lines."""

    line: int
    command: str
    expected: str
    exit_code: int = 0

    def matches(self, printed: str) -> bool:
        """Whether that is what the guide says. Space at the ends of lines does not count."""
        wanted = "\n".join(line.rstrip() for line in self.expected.strip().splitlines())
        found = "\n".join(line.rstrip() for line in printed.strip().splitlines())
        pattern = ".*".join(re.escape(piece) for piece in wanted.split(ANYTHING))
        return re.fullmatch(pattern, found, re.DOTALL) is not None


Example = File | Command


class Unreadable(AssertionError):
    """A block that says neither which file it is nor what to run."""


def examples(guide: Path) -> Iterator[Example]:
    """In the order of the guide. Raises Unreadable."""
    text = guide.read_text()
    for block in FENCE.finditer(text):
        line = text.count("\n", 0, block.start()) + 2
        language, body = block.group(1), block.group(2)
        if language == "yaml":
            yield _file(line, body)
        elif language == "console":
            yield from _commands(line, body)
        else:
            raise Unreadable(f"line {line}: a block is `yaml` with its path in a comment, or `console`")


def _file(line: int, body: str) -> File:
    for kind, pattern in KINDS.items():
        if (found := pattern.search(body)) is not None:
            return File(line, found.group(1), body, kind)
    raise Unreadable(f"line {line}: no comment says which file this is")


def _commands(line: int, body: str) -> Iterator[Command]:
    number, command, expected = line, "", list[str]()
    for offset, text in enumerate(body.splitlines()):
        if text.startswith("$ "):
            if command:
                yield _command(number, command, expected)
            number, command, expected = line + offset, text[2:], []
        elif command.endswith("\\"):
            command = command[:-1] + text.strip()
        else:
            expected.append(text)
    if not command:
        raise Unreadable(f"line {line}: a command begins with `$ `")
    yield _command(number, command, expected)


def _command(line: int, command: str, expected: list[str]) -> Command:
    command, _, remark = command.partition("  # exits with ")
    return Command(line, command.strip(), "\n".join(expected), int(remark or 0))
