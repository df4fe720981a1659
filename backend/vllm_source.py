"""For maintainers: where in vLLM's source its flags are declared. Nothing of it is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOURCES: Final = (
    "engine/arg_utils.py",
    "entrypoints/openai/cli_args.py",
    "entrypoints/launchers/cli_args.py",
)


def parsed(package: Path) -> tuple[list[ast.Module], list[ast.Module]]:
    """What declares flags, and the configurations whose fields some of them are. Raises OSError, SyntaxError."""
    trees = [ast.parse((package / source).read_text()) for source in SOURCES if (package / source).exists()]
    return trees, [ast.parse(path.read_text()) for path in sorted((package / "config").glob("*.py"))]


def classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    """All of them, within others too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def fields(of: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Each annotated field, and its annotation."""
    for item in of.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield item.target.id, item.annotation


def frontend_fields(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """``FrontendArgs`` and its base become flags field by field."""
    for one in classes(tree):
        if one.name.endswith("FrontendArgs"):
            yield from fields(one)


def flag_of(field: str) -> str:
    """Its name."""
    return f"--{field.replace('_', '-')}"


def added_flags(tree: ast.Module) -> Iterator[tuple[tuple[str, ...], ast.Call]]:
    """Every ``add_argument`` of a flag: its names as far as they are plain, with - for _, and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            names = tuple(
                argument.value.replace("_", "-")
                for argument in node.args
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            )
            if names and names[0].startswith("-"):
                yield names, node
