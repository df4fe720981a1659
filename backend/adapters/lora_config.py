"""What ``adapter_config.json`` says, as far as it decides how the tensors are applied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from backend.adapters.finding import Finding, error, shown
from backend.adapters.name_pattern import LONGEST_NAME, PatternRefused, first_match

MOST_RANK: Final = 65_536
_MOST_ALPHA: Final = 1e6


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """``base_name`` and ``revision`` are as they were written. ``target_modules``: a string is a regular expression."""

    rank: int
    alpha: float
    rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base_name: str | None
    revision: str | None
    target_modules: tuple[str, ...] | str | None
    raw: Mapping[str, Any]

    def rank_of(self, module: str) -> int:
        """The rank that the configuration gives a module, named as in the checkpoint."""
        found = first_match(self.rank_pattern, module)
        return self.rank if found is None else found

    def alpha_of(self, module: str) -> float:
        """The ``lora_alpha`` that the configuration gives a module."""
        found = first_match(self.alpha_pattern, module)
        return self.alpha if found is None else found

    def scaling_of(self, module: str) -> float:
        """What the product of B and A is multiplied with: α/r, or α/√r for rsLoRA (arXiv 2312.03732)."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.rslora else rank)

    def scaling_in_words(self, module: str) -> str:
        """`32/16 = 2`, or with rsLoRA `32/√16 = 8`."""
        root = "√" if self.rslora else ""
        scaling = self.scaling_of(module)
        return f"{self.alpha_of(module):g}/{root}{self.rank_of(module)} = {scaling:g}"


def parse(raw: object, file: str = "adapter_config.json") -> tuple[LoraConfig | None, list[Finding]]:
    """The configuration, or None and everything that keeps it from being understood."""
    if not isinstance(raw, dict):
        return None, [error("config-invalid", f"{file} is not a JSON object", "Export the adapter again with PEFT.")]
    reader = _Reader(raw, file)
    config = LoraConfig(
        rank=reader.rank("r"),
        alpha=reader.alpha("lora_alpha"),
        rslora=reader.flag("use_rslora"),
        rank_pattern=reader.pattern("rank_pattern", _rank),
        alpha_pattern=reader.pattern("alpha_pattern", _alpha),
        base_name=reader.text("base_model_name_or_path"),
        revision=reader.text("revision"),
        target_modules=reader.names("target_modules"),
        raw=raw,
    )
    return (None if reader.findings else config), reader.findings


class _Reader:
    def __init__(self, raw: Mapping[str, Any], file: str) -> None:
        self.findings: list[Finding] = []
        self._raw = raw
        self._file = file

    def rank(self, key: str) -> int:
        rank = _rank(self._raw.get(key))
        if rank is None:
            self._wrong(key, f"a whole number from 1 to {MOST_RANK}")
        return rank or 1

    def alpha(self, key: str) -> float:
        alpha = _alpha(self._raw.get(key))
        if alpha is None:
            self._wrong(key, f"a number within ±{_MOST_ALPHA:g}")
        return alpha or 0.0

    def flag(self, key: str) -> bool:
        value = self._raw.get(key)
        if value is not None and not isinstance(value, bool):
            self._wrong(key, "true or false")
        return value is True

    def text(self, key: str) -> str | None:
        value = self._raw.get(key)
        if value is not None and not isinstance(value, str):
            self._wrong(key, "a string or null")
        return value if isinstance(value, str) and value.strip() else None

    def names(self, key: str) -> tuple[str, ...] | str | None:
        value = self._raw.get(key)
        if value is None or isinstance(value, str):
            return value
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            self._wrong(key, "a list of module names, or one regular expression")
            return None
        return tuple(value)

    def pattern(self, key: str, read: Any) -> dict[str, Any]:
        value = self._raw.get(key) or {}
        if not isinstance(value, dict):
            self._wrong(key, "an object: module name to number")
            return {}
        found = {name: read(number) for name, number in value.items()}
        if wrong := [name for name, number in found.items() if number is None]:
            self._wrong(key, f"numbers, as they are elsewhere; {shown(wrong[0])} has {shown(value[wrong[0]])}")
            return {}
        try:
            for name in found:  # now, so that no later look-up raises
                first_match({name: None}, "-" * LONGEST_NAME)
        except PatternRefused as refused:
            self._wrong(key, f"plain module names as keys; one {refused}")
            return {}
        return found

    def _wrong(self, key: str, due: str) -> None:
        what = f"has {shown(self._raw[key])} for" if key in self._raw else "lacks"
        self.findings.append(
            error(
                "config-invalid",
                f"{self._file} {what} {key}, which has to be {due}",
                "Export the adapter again with PEFT.",
            )
        )


def _rank(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_RANK else None


def _alpha(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -_MOST_ALPHA <= value <= _MOST_ALPHA else None  # False for NaN as well
