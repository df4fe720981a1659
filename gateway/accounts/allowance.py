"""One limit as one process has it: permits that it holds, spends, and passes on. Pure; the clock is handed in.

A limit of L is L permits, divided among all processes that admit requests: each spends only what it holds, so that
together they admit no more than L whatever reaches whom at the same moment. A permit that was spent cools for the
length of the window (of a limit on what runs at once: until the request has ended) and is then fresh again in the same
hands, so that no window of that length sees it twice. What a process holds it publishes before it spends it, and gives
back before it says so: what is published of all is never less than what they hold.

Who runs short says so. Those with fresh permits give them up down to their share of the recent demand, and where
nobody asks for anything shares are equal. So the permits are where the requests are, one or two exchanges later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

WINDOW_S = 60.0
"""Limits a minute hold for every 60 seconds, wherever they begin."""

BUCKET_S = 0.25
"""What is spent within it cools together, until its last moment is a window ago: 0.4 % late at most."""

LOOK_AHEAD_S = 0.5
"""For so long a process wants to have permits at hand, by the recent demand: some exchanges."""

RATE_HALF_LIFE_S = 2.0

STANDING = 0.02
"""Of a limit, what all those together keep that have no use for it now, for the first request that comes."""

NEGLIGIBLE = 0.02
"""Units a second, below which there is no demand."""


class Share(msgspec.Struct, array_like=True, frozen=True):
    """What one process publishes of one limit. ``fresh``: of those held; below 0 where more was used than was reserved.
    ``want``: how many more it has a use for now; ``rate``: units a second that were asked of it lately.
    """

    held: int
    fresh: int
    want: int = 0
    rate: float = 0.0


class Bucket:
    """What was spent in one moment, and until when it cools."""

    __slots__ = ("amount", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.amount = 0


class Allowance:
    """``limit`` permits, of which this process holds ``held``. ``window_s``: None where a permit is given back.

    ``fresh_elsewhere``: what others had fresh, ``free``: what nobody held, when that was last heard.
    """

    __slots__ = (
        "_asked",
        "_claim",
        "_cooling",
        "_planned_at",
        "_window_s",
        "alive",
        "free",
        "fresh_elsewhere",
        "held",
        "limit",
        "missed",
        "rate",
        "spent",
        "want",
    )

    def __init__(self, limit: int, *, window_s: float | None) -> None:
        self.limit = limit
        self.held = 0
        self.spent = 0
        self.alive = 1
        self.fresh_elsewhere = 0
        self.free = limit
        self.missed = 0
        """Units that were asked for in vain since the last plan."""
        self.rate = 0.0
        self.want = 0
        self._window_s = window_s
        self._cooling: deque[Bucket] = deque()
        self._asked = 0
        self._claim = 0
        self._planned_at: float | None = None

    # Spending.

    def left(self, now: float, *, equal_share: bool = False) -> int:
        """How many may be spent now. ``equal_share``: it is ours even where we hold less, as the others were not
        heard of for long."""
        self.cool(now)
        return (max(self.held, self.fair) if equal_share else self.held) - self.spent

    @property
    def fair(self) -> int:
        """An equal share."""
        return self.limit // self.alive

    def spend(self, amount: int, now: float) -> Bucket | None:
        """Spend ``amount``, which was found to be left (or is owed). What it cools in, to be corrected later."""
        self.spent += amount
        self._asked += amount
        if self._window_s is None:
            return None
        cooling = self._cooling
        if not cooling or cooling[-1].until - self._window_s <= now:
            cooling.append(Bucket((now // BUCKET_S + 1) * BUCKET_S + self._window_s))
        cooling[-1].amount += amount
        return cooling[-1]

    def unspend(self, amount: int, bucket: Bucket | None) -> None:
        """Less was used than was spent in ``bucket``, or, without a window, a request has ended."""
        if bucket is not None:
            # What has cooled meanwhile is fresh already.
            amount = min(amount, bucket.amount)
            bucket.amount -= amount
        self.spent -= amount

    def miss(self, amount: int) -> None:
        """``amount`` was asked for, and not there."""
        self._asked += amount
        self.missed = min(self.limit, self.missed + amount)

    def cool(self, now: float) -> None:
        """What was spent a window ago is fresh again."""
        cooling = self._cooling
        while cooling and cooling[0].until <= now:
            bucket = cooling.popleft()
            self.spent -= bucket.amount
            bucket.amount = 0

    def fresh_in(self, amount: int, now: float) -> float:
        """Seconds until ``amount`` more could be spent of what is held here, if nobody else did; inf where never."""
        missing = amount - self.left(now)
        for bucket in self._cooling:
            if missing <= 0:
                break
            missing -= bucket.amount
            if missing <= 0:
                return max(0.0, bucket.until - now)
        return 0.0 if missing <= 0 else math.inf

    def resets_in(self, now: float) -> float:
        """Seconds until all that was spent here has cooled."""
        self.cool(now)
        return next((min(WINDOW_S, bucket.until - now) for bucket in reversed(self._cooling) if bucket.amount), 0.0)

    # Sharing.

    def take_all(self) -> None:
        """There is nobody to share with."""
        self.held, self.alive, self.fresh_elsewhere, self.free = self.limit, 1, 0, 0

    def plan(self, others: Sequence[Share], alive: int, now: float, *, may_claim: bool = True) -> Share:
        """What is to be published next. What it gives up is gone at once; what it claims comes with :meth:`settle`.

        ``others``: as last heard; ``alive``: processes that share the limit, this one counted.
        """
        self.cool(now)
        self.alive = alive
        self._measure(now)
        fresh = self.held - self.spent
        free = self.limit - self.held - sum(other.held for other in others)
        their_want = sum(other.want for other in others)
        their_rate = sum(other.rate for other in others)
        missed, self.missed = self.missed, 0
        if free < 0:
            # A limit that was lowered, or somebody who came back: each gives up what it has over an equal share.
            self.held -= max(0, min(fresh, -free, self.held - self.fair))
            free = 0
        elif their_want:
            self.held -= max(0, min(fresh, their_want, self._surplus(fresh, their_rate)))
        fresh = self.held - self.spent
        need = max(missed, math.ceil(self.rate * LOOK_AHEAD_S)) - fresh
        if need <= 0:
            idle = self.rate < NEGLIGIBLE and their_rate < NEGLIGIBLE
            lacking = self.fair - self.held
            need = lacking if lacking > 0 and (idle or not their_want) else 0
            self.want = need if idle else 0
        else:
            self.want = missed - fresh if missed > fresh else 0
        mine = math.ceil(free * need / (need + their_want)) if need > 0 and free > 0 else 0
        self._claim = min(need, mine) if may_claim else 0
        self.want = max(0, self.want - self._claim)
        return Share(self.held + self._claim, fresh + self._claim, self.want, round(self.rate, 3))

    def settle(self, others: Iterable[Share]) -> bool:
        """The last plan was published, and this is what all others had published then. Whether it claimed too much, so
        that it has to be published anew."""
        theirs = spare = 0
        for other in others:
            theirs += other.held
            spare += max(0, other.fresh)
        claim, self._claim = self._claim, 0
        excess = max(0, self.held + claim + theirs - self.limit)
        kept = max(0, claim - excess)
        self.held += kept
        self.fresh_elsewhere, self.free = spare, max(0, self.limit - self.held - theirs)
        return kept < claim

    def forget_claim(self) -> None:
        """Whether the last plan was published is not known. What it claimed is not ours."""
        self._claim = 0

    @property
    def left_elsewhere(self) -> int:
        """What is left besides what is held here."""
        return self.fresh_elsewhere + self.free

    @property
    def spare_elsewhere(self) -> int:
        """Of that, what could be had: others keep a little."""
        return max(0, self.fresh_elsewhere - math.floor(self.limit * STANDING)) + self.free

    def _surplus(self, fresh: int, their_rate: float) -> int:
        """What this process can do without while others run short: what it has no use for soon, and what is over its
        share of the recent demand."""
        if self.rate < NEGLIGIBLE and their_rate < NEGLIGIBLE:
            return self.held - self.fair
        standing = math.floor(self.limit * STANDING) // self.alive
        of_use = max(standing, math.floor(self.rate * LOOK_AHEAD_S))
        share = max(standing, math.ceil(self.limit * self.rate / (self.rate + their_rate)))
        return max(fresh - of_use, self.held - share)

    def _measure(self, now: float) -> None:
        if self._planned_at is not None and (passed_s := now - self._planned_at) > 0:
            keep = 0.5 ** (passed_s / RATE_HALF_LIFE_S)
            self.rate = self.rate * keep + (1 - keep) * self._asked / passed_s
            self._asked = 0
        self._planned_at = now
