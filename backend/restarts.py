"""When a box that crashed is started again, and when no more. Pure."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 1.0
LONGEST_S: Final = 60.0
STEADY_S: Final = 600.0
"""Who has served for so long has recovered: its earlier crashes no longer count."""


class Restarts:
    """Counts crashes that follow one another. ``allowed``: starts after the first one."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self.used = 0

    def after_crash(self, served_s: float | None) -> float | None:
        """Seconds to wait before the next start, or None where there is to be none.

        ``served_s``: for how long it had answered; None where it never did.
        """
        if served_s is not None and served_s >= STEADY_S:
            self.used = 0
        if self.used >= self._allowed:
            return None
        self.used += 1
        return min(LONGEST_S, FIRST_S * 2.0 ** min(self.used - 1, 10))
