"""What one step of an engine did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Step:
    """What one step did, as it shows when it ends. Ids are in the order of the batch.

    ``steps``: so many steps alike in one; each id in ``tokens`` got that many tokens, one each ``duration_s / steps``.
    """

    began_s: float
    duration_s: float = 0.0
    steps: int = 1
    tokens: list[str] = field(default_factory=list)
    """Who got a token."""
    first_tokens: list[str] = field(default_factory=list)
    """Those of them whose first one it was."""
    finished: list[str] = field(default_factory=list)
    """Those of them whose last one it was; they are out of the engine."""
    started: list[str] = field(default_factory=list)
    """Who was admitted from the queue for the first time."""
    preempted: list[str] = field(default_factory=list)
    swapped_in: list[str] = field(default_factory=list)
    """Adapters copied into a GPU slot."""
    read_from_disk: list[str] = field(default_factory=list)
    """Those of them that the CPU pool did not have."""
    prefill_tokens: int = 0
    """Tokens computed that were not a decoding sequence's one."""

    @property
    def ended_s(self) -> float:
        """When its tokens are there."""
        return self.began_s + self.duration_s
