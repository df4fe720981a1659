"""Whether an engine's scheduler runs."""

from __future__ import annotations

from enum import Enum, auto


class Pause(Enum):
    """Whether the scheduler runs (``PauseState`` in ``vllm/v1/core/sched/interface.py``). Requests may come anyway."""

    NO = auto()
    NEW = auto()
    """What runs goes on, nobody is admitted."""
    ALL = auto()
    """No step at all."""
