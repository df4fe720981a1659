"""Which other processes live, as one of them sees it: by whether their count of beats grows. No clocks are compared."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.accounts.account import Shares, read_shares, without_fresh

BEAT_S = 0.5
"""From one sign of life to the next."""

DEAD_S = 3.0
"""So long without one."""

UNSEEN_S = 0.9
"""The same for one that was never seen to live: what a gateway left behind that was killed before we came."""

COOLED_S = 62.0
"""After so long nothing of what a dead one had spent counts any more."""


VISITOR = "visitor:"
"""Before the name of a process that asks for single permits only: it counts for nothing where shares are equal."""


class _Other:
    __slots__ = ("beat", "ever_lived", "listed", "since")

    def __init__(self, beat: int, now: float, *, listed: bool) -> None:
        self.beat = beat
        self.since = now
        self.ever_lived = False
        self.listed = listed
        """Whether it says that it lives; what has ended in order does not."""


class Others:
    """Everybody but ``me``."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._known: dict[str, _Other] = {}

    def hear(self, beats: Mapping[str, int], now: float) -> None:
        """These have said that they live, at some time."""
        for name, beat in beats.items():
            if name == self._me:
                continue
            known = self._known.get(name)
            if known is None:
                self._known[name] = _Other(beat, now, listed=True)
            elif known.beat != beat or not known.listed:
                known.beat, known.since, known.ever_lived, known.listed = beat, now, True, True
        for name in self._known.keys() - beats.keys():
            self._known[name].listed = False

    def alive(self, now: float) -> int:
        """How many others live, visitors left out."""
        return sum(self._lives(name, now) for name in self._known if not name.startswith(VISITOR))

    def known(self, now: float) -> bool:
        """Whether it is known of each that is listed whether it lives."""
        return all(
            not other.listed or other.ever_lived or not self._lives(name, now) for name, other in self._known.items()
        )

    def forgotten(self, now: float) -> list[str]:
        """Those of whom nothing counts any more. They are forgotten here as well."""
        gone = [name for name, other in self._known.items() if now - other.since > COOLED_S]
        for name in gone:
            del self._known[name]
        return gone

    def counting(self, published: Mapping[str, bytes], now: float) -> dict[str, Shares]:
        """What counts of what others have published."""
        found: dict[str, Shares] = {}
        for name, data in published.items():
            if name == self._me or (shares := read_shares(data)) is None:
                continue
            if name not in self._known:
                self._known[name] = _Other(0, now, listed=False)
            found[name] = shares if self._lives(name, now) else without_fresh(shares)
        return found

    def _lives(self, name: str, now: float) -> bool:
        other = self._known[name]
        return other.listed and now - other.since <= (DEAD_S if other.ever_lived else UNSEEN_S)
