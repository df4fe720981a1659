"""For maintainers: which values vLLM's flags take, read off its source. What is not plain there is left out as unknown.

The rules are those of ``_compute_kwargs`` in vLLM's ``engine/arg_utils.py``, which makes argparse's types and choices
of the annotations of its configurations' fields.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from backend.flag_values import CHOICE, FLOAT, INTEGER, SIZE
from backend.vllm_source import added_flags, classes, fields, flag_of, frontend_fields

PARSERS: Final = {
    "--tool-call-parser": ("tool_parsers/__init__.py", "_TOOL_PARSERS_TO_REGISTER"),
    "--reasoning-parser": ("reasoning/__init__.py", "_REASONING_PARSERS_TO_REGISTER"),
}
"""Flags that take the names in a table, and where that is."""

Fields = Mapping[str, Mapping[str, ast.expr]]
"""Annotations by class and field."""


def value_survey(package: Path, sources: Iterable[ast.Module], configs: Iterable[ast.Module]) -> dict[str, str]:
    """What the flags of ``sources`` take, in the words of :mod:`backend.flag_values`, by each flag's first long name.

    Raises OSError, SyntaxError.
    """
    sources, configs = list(sources), list(configs)
    trees = [*configs, *sources]
    aliases = {name: value for tree in configs for name, value in _assigned(tree.body)}
    annotations = {one.name: dict(fields(one)) for tree in trees for one in classes(tree)}
    found = {
        name: values
        for tree in sources
        for name, values in (*_added(tree, annotations, aliases), *_frontend(tree, aliases))
        if values is not None
    }
    for flag, (source, table) in PARSERS.items():
        names = _keys(package / source, table)
        if names:
            found[flag] = CHOICE.join(sorted(names))
    return found


def _assigned(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for item in body:
        if isinstance(item, ast.Assign) and len(item.targets) == 1 and isinstance(item.targets[0], ast.Name):
            yield item.targets[0].id, item.value
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
            yield item.target.id, item.value


def _keys(source: Path, table: str) -> list[str]:
    if not source.exists():
        return []
    for name, value in _assigned(ast.parse(source.read_text()).body):
        if name == table and isinstance(value, ast.Dict):
            return [key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    return []


def _added(tree: ast.Module, annotations: Fields, aliases: Mapping[str, ast.expr]) -> Iterator[tuple[str, str | None]]:
    """Every ``add_argument``; None where what it takes is not plain."""
    configs = {
        target.id: node.value.args[0].id  # model_kwargs = get_kwargs(ModelConfig)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(target := node.targets[0], ast.Name)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "get_kwargs"
        and isinstance(node.value.args[0], ast.Name)
    }
    changed, sizes, exceptions = _changed(tree), _sizes(tree), _exceptions(tree)
    for names, call in added_flags(tree):
        long = [name for name in names if name.startswith("--")]
        if not long:
            continue
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        spread = _spread(keywords.get(None))
        if isinstance(spread, ast.Subscript) and isinstance(spread.value, ast.Name) and len(keywords) == 1:
            field = spread.slice.value if isinstance(spread.slice, ast.Constant) else None
            annotation = annotations.get(configs.get(spread.value.id, ""), {}).get(str(field))
            plain = (spread.value.id, field) not in changed and field not in exceptions
            values = _values(annotation, aliases) if annotation is not None and plain else None
            yield long[0], SIZE if values == INTEGER and field in sizes else values
        elif None not in keywords and not {"action", "nargs"} & keywords.keys():
            yield long[0], _plain(keywords)


def _spread(given: ast.expr | None) -> ast.expr | None:
    """``model_kwargs["seed"]``, if within ``{**model_kwargs["seed"], "default": None}``, which changes no values."""
    if not isinstance(given, ast.Dict):
        return given
    names = [key.value for key in given.keys if isinstance(key, ast.Constant)]
    inner = [value for key, value in zip(given.keys, given.values, strict=True) if key is None]
    return inner[0] if len(inner) == 1 and set(names) <= {"default", "help"} else None


def _plain(keywords: Mapping[str | None, ast.expr]) -> str | None:
    """``type=int``, or ``choices=["a", "b"]``"""
    choices, kind = keywords.get("choices"), keywords.get("type")
    if isinstance(choices, ast.List) and all(isinstance(one, ast.Constant) for one in choices.elts):
        names = [str(one.value) for one in choices.elts if isinstance(one, ast.Constant)]
        return CHOICE.join(sorted(names)) if kind is None or _name(kind) in {"str", "int"} else None
    return {"int": INTEGER, "float": FLOAT}.get(_name(kind)) if choices is None else None


def _frontend(tree: ast.Module, aliases: Mapping[str, ast.expr]) -> Iterator[tuple[str, str | None]]:
    changed = {field for _, field in _changed(tree)}
    for field, annotation in frontend_fields(tree):
        yield flag_of(field), None if field in changed else _values(annotation, aliases)


def _exceptions(tree: ast.Module) -> set[str]:
    """Fields with rules of their own: ``if name == "max_model_len"``."""
    return {
        str(other.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and _name(node.left) == "name" and isinstance(node.ops[0], ast.Eq)
        for other in node.comparators
        if isinstance(other, ast.Constant)
    }


def _changed(tree: ast.Module) -> set[tuple[str, object]]:
    """What is set by hand after the rules: ``parallel_kwargs["all2all_backend"]["choices"].remove(…)``."""
    return {
        (inner.value.id, inner.slice.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(inner := node.value, ast.Subscript)
        and isinstance(inner.value, ast.Name)
        and isinstance(inner.slice, ast.Constant)
    }


def _sizes(tree: ast.Module) -> set[str]:
    """Fields that take ``8k`` too."""
    return {
        str(one.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _name(node.targets[0]) == "human_readable_int_args"
        for one in ast.walk(node.value)
        if isinstance(one, ast.Constant)
    }


def _values(annotation: ast.expr, aliases: Mapping[str, ast.expr]) -> str | None:
    """Of an annotation. None for what takes any text, several values, JSON, or what is not understood."""
    choices: set[str] = set()
    kinds: set[str] = set()
    for part in _parts(annotation, aliases):
        if isinstance(part, ast.Subscript) and _name(part.value) == "Literal":
            literals = list(_literals(part, aliases))
            if any(one is None for one in literals):
                return None
            choices |= {str(one) for one in literals}
        else:
            kinds.add(_name(part))
    if choices:
        return CHOICE.join(sorted(choices)) if not kinds else None
    if kinds and kinds <= {"int", "float"}:
        return INTEGER if kinds == {"int"} else FLOAT
    return None


def _parts(annotation: ast.expr, aliases: Mapping[str, ast.expr]) -> Iterator[ast.expr]:
    """The members of a union, without None."""
    if isinstance(annotation, ast.BinOp):
        yield from _parts(annotation.left, aliases)
        yield from _parts(annotation.right, aliases)
    elif isinstance(annotation, ast.Subscript) and _name(annotation.value) in {"Annotated", "Optional", "Union"}:
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        for one in inner[:1] if _name(annotation.value) == "Annotated" else inner:
            yield from _parts(one, aliases)
    elif isinstance(annotation, ast.Name) and annotation.id in aliases:
        yield from _parts(aliases[annotation.id], aliases)
    elif not (isinstance(annotation, ast.Constant) and annotation.value is None):
        yield annotation


def _literals(literal: ast.Subscript, aliases: Mapping[str, ast.expr]) -> Iterator[object]:
    """What a ``Literal`` names, those of another in it included; None for what is not plain."""
    for one in literal.slice.elts if isinstance(literal.slice, ast.Tuple) else [literal.slice]:
        inner = aliases.get(_name(one)) if isinstance(one, ast.Name) else None
        if isinstance(one, ast.Constant):
            yield one.value
        elif isinstance(inner, ast.Subscript) and _name(inner.value) == "Literal":
            yield from _literals(inner, aliases)
        else:
            yield None


def _name(node: ast.expr | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""
