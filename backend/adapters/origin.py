"""Whether an adapter was trained on this base: vLLM loads one of fitting shape for any other in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from backend.adapters.base_model import MAIN, BaseModel, named
from backend.adapters.finding import Finding, error, info, shown, warning
from backend.adapters.lora_config import LoraConfig

_DEEPEST: Final = 20
_COMMIT: Final = re.compile(r"[0-9a-f]{7,40}")


def check_origin(config: LoraConfig, base: BaseModel) -> Iterator[Finding]:
    """Compare the base's name by its last path component, case aside, and the revision where both sides say one."""
    # The base's name may well be a path of the trainer's machine: it is compared by its end, and nothing is read there.
    others = {key: value for key, value in config.raw.items() if key != "base_model_name_or_path"}
    for key, path in _climbing(others):
        message = f"{shown(key)} climbs out of its folder: {shown(path)}"
        yield error("path-traversal", message, "Write the name alone, without any `..`.")
    if config.base_name is None:
        yield warning(
            "base-name-missing",
            "adapter_config.json does not say which base it was trained on (base_model_name_or_path)",
            "Set it to the base's name, if you are sure of it.",
        )
        return
    name, revision = named(config.base_name)
    if name.casefold() not in {own.casefold() for own in base.names}:
        known = '" or "'.join(base.names) or "of no name"
        yield error(
            "base-name-mismatch",
            f'it was trained on "{shown(name)}", and the base is "{shown(known)}"',
            f"Serve it on its own base. If both names mean one model, say --base-name {shown(name)}.",
        )
        return
    yield from _check_revision(config.revision or revision, base.revision)


def _check_revision(trained: str | None, served: str | None) -> Iterator[Finding]:
    if trained is None or trained in MAIN:
        return
    if served is None:
        yield info(
            "revision-unknown",
            f"it was trained on revision {shown(trained)} of the base, and the base's folder does not say which it is",
            "Say it with --base-revision.",
        )
    elif not _same_revision(trained, served):
        yield error(
            "revision-mismatch",
            f"it was trained on revision {shown(trained)} of the base, which is {shown(served)} here",
            "Serve it on the revision of its training, or train it again; if both mean one, say --base-revision.",
        )


def _climbing(value: object, key: str = "adapter_config.json", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every string with a `..` between its slashes, and the key that it stands under."""
    if isinstance(value, str):
        if ".." in value.split("/"):  # a backslash may be a regular expression's
            yield key, value
    elif isinstance(value, Mapping) and depth < _DEEPEST:
        for name, inner in value.items():
            yield from _climbing(inner, str(name), depth + 1)
    elif isinstance(value, list) and depth < _DEEPEST:
        for inner in value:
            yield from _climbing(inner, key, depth + 1)


def _same_revision(one: str, other: str) -> bool:
    if _COMMIT.fullmatch(one) and _COMMIT.fullmatch(other):
        return one.startswith(other) or other.startswith(one)
    return one == other
