"""What did not work, and when it is tried again. Pure: time is handed in, in monotonic seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.adapters.plan import Held, Kind
from gateway.adapters.wanted import Wanted

FIRST_S = 30.0
LONGEST_S = 3600.0
"""What a box refused it refuses again until somebody has mended its folder, and each try costs it a load."""

AFTER_A_LOSS_S = 600.0
"""An adapter after which a box was gone is left alone by all boxes for so long at least: it may be what ended it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The last one of an adapter from one path."""

    text: str
    times: int
    retry_at: float


class Failures:
    """Of one fleet. An adapter from another path is another adapter."""

    def __init__(self) -> None:
        self._failed: dict[tuple[str | None, str, str | None], Failure] = {}

    def failed(self, box: str, adapter: str, path: str | None, text: str, now: float, *, lost: bool = False) -> Failure:
        """It did not work. ``lost``: the box did not answer any more afterwards."""
        key = (None if lost else box, adapter, path)
        before = self._failed.get(key)
        times = 1 if before is None else before.times + 1
        wait_s = min(LONGEST_S, (AFTER_A_LOSS_S if lost else FIRST_S) * 2 ** min(times - 1, 16))
        told = f"{text}, and box {box} was gone" if lost else text
        self._failed[key] = found = Failure(told, times, now + wait_s)
        return found

    def worked(self, box: str, adapter: str) -> None:
        """It answers there."""
        for key in [key for key in self._failed if key[1] == adapter and key[0] in (box, None)]:
            del self._failed[key]

    def keep(self, wanted: Mapping[str, Wanted]) -> None:
        """Forget what nobody wants any more, or wants from elsewhere."""
        for key in [key for key in self._failed if (one := wanted.get(key[1])) is None or one.path != key[2]]:
            del self._failed[key]

    def held(self, box: str, wanted: Mapping[str, Wanted], now: float) -> dict[str, Held]:
        """What is not tried at ``now`` on this box."""
        return {
            adapter: Held(adapter, Kind.FAILED, found.text)
            for (where, adapter, path), found in self._failed.items()
            if where in (box, None) and now < found.retry_at and adapter in wanted and wanted[adapter].path == path
        }

    def known(self, box: str) -> dict[str, Failure]:
        """All that failed there, due again or not."""
        return {adapter: found for (where, adapter, _), found in self._failed.items() if where in (box, None)}

    def next_at(self, now: float) -> float | None:
        """When the next one is due."""
        return min((found.retry_at for found in self._failed.values() if found.retry_at > now), default=None)
