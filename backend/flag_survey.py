"""For maintainers: which flags each release of vLLM takes, read off its source without running it.

``python -m backend.flag_survey 0.6.3=DIR 0.32=DIR …``, each DIR the folder that holds the package ``vllm``, writes the
table that :mod:`backend.vllm_flags` reads. What it has of releases that are not given is kept. Nothing of vLLM is
imported: a release can be read without what it needs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from backend.value_survey import value_survey
from backend.vllm_flags import TABLE, Flag, Kind, parse_version, read_table, write_table
from backend.vllm_source import added_flags, classes, fields, flag_of, frontend_fields, parsed

ACTIONS: dict[str, Kind] = {"store_true": "switch", "store_false": "switch", "StoreBoolean": "optional"}


def survey(package: Path) -> dict[str, tuple[Kind, tuple[str, ...]]]:
    """What the package's ``serve`` takes: kind and other names, by each flag's first long name.

    Raises OSError, SyntaxError.
    """
    trees, configs = parsed(package)
    types = {
        name: _kind_of(annotation)
        for tree in (*configs, *trees)
        for one in classes(tree)
        for name, annotation in fields(one)  # vLLM makes argparse's settings from these
    }
    found: dict[str, tuple[Kind, tuple[str, ...]]] = {}
    for tree in trees:
        flags = [(names, _kind_of_call(call, types)) for names, call in added_flags(tree)]
        flags += [((flag_of(field),), _kind_of(annotation)) for field, annotation in frontend_fields(tree)]
        for names, kind in flags:
            long = [name for name in names if name.startswith("--")]
            if long and not any("{" in name for name in names):
                found[long[0]] = (kind, tuple(sorted(set(names) - {long[0]})))
    return found


def values(package: Path) -> dict[str, str]:
    """What the flags take that take no more than numbers or certain names. Raises OSError, SyntaxError."""
    return value_survey(package, *parsed(package))


def _kind_of(annotation: ast.expr) -> Kind:
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    if "bool" not in names:
        return "value"
    return "optional" if "str" in names else "toggle"


def _kind_of_call(call: ast.Call, types: dict[str, Kind]) -> Kind:
    for keyword in call.keywords:
        if keyword.arg == "action":
            action = keyword.value.value if isinstance(keyword.value, ast.Constant) else _last_name(keyword.value)
            if action == "BooleanOptionalAction":
                return "toggle"
            return ACTIONS.get(str(action), "value")
        if keyword.arg == "nargs" and isinstance(keyword.value, ast.Constant) and keyword.value.value == "?":
            return "optional"
        if keyword.arg is None:  # **model_kwargs["enforce_eager"]
            for part in ast.walk(keyword.value):
                if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Constant):
                    return types.get(str(part.slice.value), "value")
    return "value"


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def main(arguments: Sequence[str]) -> None:
    """Write the table from ``VERSION=DIR`` arguments."""
    given = {version: Path(place) / "vllm" for version, _, place in (a.partition("=") for a in arguments)}
    versions, flags = with_surveyed(*read_table(TABLE.read_text()), given)
    TABLE.write_text(write_table(versions, flags))


def with_surveyed(
    known: Sequence[str], flags: Sequence[Flag], given: Mapping[str, Path]
) -> tuple[tuple[str, ...], list[Flag]]:
    """A table's versions and flags with the packages ``given``, by version, in place of what it had of those."""
    versions = tuple(sorted({*known, *given}, key=parse_version))
    surveys = {version: survey(package) for version, package in given.items()}
    taken = {version: values(package) for version, package in given.items()}
    before = {flag.name: flag for flag in flags}
    made = []
    for name in sorted({*before, *(name for one in surveys.values() for name in one)}):
        old = before.get(name)
        kept = () if old is None else tuple(version for version in old.versions if version not in given)
        have = tuple(version for version in versions if version in kept or name in surveys.get(version, ()))
        if not have:
            continue
        newest = surveys.get(have[-1])
        if newest is not None:
            kind, aliases = newest[name]
        elif old is not None:
            kind, aliases = old.kind, old.aliases
        what = {} if old is None else {version: one for version, one in old.values if version in kept}
        what |= {version: one[name] for version, one in taken.items() if version in have and name in one}
        made.append(Flag(name, kind, aliases, have, tuple((v, what[v]) for v in versions if v in what)))
    return versions, made


if __name__ == "__main__":
    main(sys.argv[1:])
