"""What a flag of vLLM's takes for a value, as far as it is known: a number, or one of some names. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.policy.diagnostics import nearest

INTEGER: Final = "int"
FLOAT: Final = "float"
SIZE: Final = "size"
"""An integer that may be written ``8k`` (thousands) or ``8K`` (of 1024)."""
CHOICE: Final = ","
"""Between names, where only these are taken."""
_MANY: Final = 12
_UNSET: Final = frozenset({"", "None"})
"""vLLM's ``optional_type`` takes these for a value that is left out."""


def _size(text: str) -> float:
    whole = re.fullmatch(r"\d+[KMGT]|\d+(\.\d+)?[kmgt]", text.strip())
    return float(text.strip()[:-1]) if whole else int(text)


_NUMBERS: Final[dict[str, tuple[Callable[[str], float], str]]] = {
    INTEGER: (int, "a whole number"),
    FLOAT: (float, "a number"),
    SIZE: (_size, "a whole number, such as 8192 or 8k"),
}


def refusal(written: str, values: str) -> tuple[str, str] | None:
    """What is wrong with ``written`` where ``values`` are taken, and what to write; None where nothing is."""
    if written in _UNSET:
        return None
    if (number := _NUMBERS.get(values)) is not None:
        parse, words = number
        try:
            parse(written)
        except ValueError:
            return f"is {written!r}, which is no number", f"write {words}"
        return None
    names = [name for name in values.split(CHOICE) if name]
    if written in names:
        return None
    near = nearest(written, names)
    some = ", ".join(names[:_MANY]) + (f" and {len(names) - _MANY} more" if len(names) > _MANY else "")
    return f"is {written!r}, which vLLM does not take", f"did you mean {near}?" if near else f"it takes {some}"
