"""Sleep mode: what of an engine is asleep, and at which level (``vllm/v1/executor/abstract.py``)."""

from __future__ import annotations

from typing import Final

TAGS: Final = frozenset({"weights", "kv_cache"})
SCHEDULING: Final = "scheduling"
"""The tag of a sleep at level 0, which only pauses the scheduler."""


class Sleep:
    """Awake at first. Level 0 keeps the memory, 1 moves the weights to the CPU, 2 discards all."""

    def __init__(self) -> None:
        self.level: int | None = None
        """What the metrics say; None when awake."""
        self._tags: frozenset[str] = frozenset()

    def begin(self, level: int) -> None:
        """Fall asleep; one that sleeps already sleeps on."""
        self.level = level
        if level:
            self._tags = TAGS

    def end(self, tags: list[str] | None) -> bool:
        """Wake what ``tags`` name, all of it without any. Whether everything is awake."""
        wanted = TAGS if tags is None else frozenset(tags) - {SCHEDULING}
        # A tag that does not sleep makes vLLM wake none of them; it only logs that.
        if tags is None or wanted <= self._tags:
            self._tags -= wanted
        if not self._tags:
            self.level = None
        return not self._tags
