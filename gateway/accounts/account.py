"""All limits of one customer (or of one provider) as one process has them, and what is published of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from gateway.accounts.allowance import WINDOW_S, Allowance, Bucket, Share

Kind = Literal["requests", "tokens", "concurrency"]
KINDS: tuple[Kind, ...] = ("requests", "tokens", "concurrency")

Shares = tuple[Share | None, Share | None, Share | None]
"""Of one process, in the order of :data:`KINDS`; None where there is no such limit."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Shares).decode


class Terms(msgspec.Struct, frozen=True):
    """The limits of an account; None: there is none."""

    requests: int | None = None
    tokens: int | None = None
    concurrency: int | None = None

    def of(self, kind: Kind) -> int | None:
        """One of them."""
        return self.requests if kind == "requests" else self.tokens if kind == "tokens" else self.concurrency


class Ticket:
    """A request that was let in. ``end`` is due once, with the tokens that it really took."""

    __slots__ = ("_account", "_bucket", "_running", "_tokens", "reserved")

    def __init__(self, account: Account, reserved: int, now: float) -> None:
        self._account = account
        self.reserved = reserved
        requests, self._tokens, self._running = account.allowances
        if requests is not None:
            requests.spend(1, now)
        self._bucket: Bucket | None = None if self._tokens is None else self._tokens.spend(reserved, now)
        if self._running is not None:
            self._running.spend(1, now)

    def end(self, tokens: int, now: float) -> None:
        """The request is over. What it took more than was reserved is owed, and taken from what comes next."""
        if self._running is not None:
            self._running.unspend(1, None)
        if self._tokens is not None:
            if tokens > self.reserved:
                self._tokens.spend(tokens - self.reserved, now)
            else:
                self._tokens.unspend(self.reserved - tokens, self._bucket)
        self._account.changed = True


class Account:
    """``others``: what all other processes have published; ``touched_at``: when it was last published, None: never.

    ``changed``: something is to be told.
    """

    __slots__ = ("_terms", "allowances", "changed", "key", "others", "published", "touched_at", "wanted")

    def __init__(self, key: str, terms: Terms) -> None:
        self.key = key
        self.allowances: tuple[Allowance | None, Allowance | None, Allowance | None] = (None, None, None)
        self._terms = Terms()
        self.others: Mapping[str, Shares] = {}
        self.published: Mapping[str, bytes] = {}
        """By everybody, as it was heard last."""
        self.touched_at: float | None = None
        self.changed = True
        self.wanted = False
        """Whether somebody else has a use for what is here."""
        self.follow(terms)

    def follow(self, terms: Terms) -> None:
        """Take over limits that may have changed. What was spent stays spent."""
        if terms is self._terms or terms == self._terms:
            return
        self._terms = terms
        requests, tokens, running = self.allowances
        self.allowances = (
            _following(requests, terms.requests, WINDOW_S),
            _following(tokens, terms.tokens, WINDOW_S),
            _following(running, terms.concurrency, None),
        )
        self.changed = True

    def lacks(self, tokens: int, now: float, *, equal_share: bool) -> Kind | None:
        """The limit that has not enough left for a request that is reckoned to take ``tokens``; None: none."""
        for kind, allowance in zip(KINDS, self.allowances, strict=True):
            if allowance is not None:
                need = self.need(allowance, kind, tokens)
                if allowance.left(now, equal_share=equal_share) < need:
                    return kind
        return None

    def missed(self, tokens: int) -> None:
        """Such a request was not let in."""
        for kind, allowance in zip(KINDS, self.allowances, strict=True):
            if allowance is not None:
                allowance.miss(self.need(allowance, kind, tokens))
        self.changed = True

    def need(self, allowance: Allowance, kind: Kind, tokens: int) -> int:
        """What one request takes of a limit. One that alone is over it is let in where all is left."""
        return min(tokens, allowance.limit) if kind == "tokens" else 1

    def has(self, tokens: int, now: float, *, ahead: tuple[int, int]) -> bool:
        """Whether there is enough here also for those before it. ``ahead``: how many, and their tokens."""
        return all(missing <= 0 for _, missing in self._missing(tokens, now, ahead))

    def may_come(self, tokens: int, now: float, *, ahead: tuple[int, int]) -> bool:
        """Whether others could give up what is missing here."""
        return all(
            missing <= 0 or missing <= allowance.spare_elsewhere
            for allowance, missing in self._missing(tokens, now, ahead)
        )

    def _missing(self, tokens: int, now: float, ahead: tuple[int, int]) -> Iterator[tuple[Allowance, int]]:
        for kind, allowance in zip(KINDS, self.allowances, strict=True):
            if allowance is not None:
                before = ahead[1] if kind == "tokens" else ahead[0]
                yield allowance, before + self.need(allowance, kind, tokens) - allowance.left(now)

    def waited_for(self, ahead: tuple[int, int]) -> None:
        """Before a plan: so many requests wait, for so many tokens."""
        for kind, allowance in zip(KINDS, self.allowances, strict=True):
            if allowance is not None:
                allowance.missed = max(allowance.missed, ahead[1] if kind == "tokens" else ahead[0])

    @property
    def has_begun(self) -> bool:
        """Whether half of an equal share is here, or nothing is left that others could give up."""
        return self.touched_at is not None and all(
            one is None or 2 * (one.held - one.spent) >= one.fair or not one.spare_elsewhere for one in self.allowances
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held here, nor asked for."""
        return not self.wants and all(one is None or not one.held for one in self.allowances)

    def can_give(self, now: float) -> bool:
        """Whether something is fresh here that somebody else has a use for."""
        return self.wanted and any(
            allowance is not None
            and allowance.left(now) > 0
            and any(share.want > 0 for share in shares_of(self.others, index))
            for index, allowance in enumerate(self.allowances)
        )

    def take_all(self) -> None:
        """There is nobody to share with."""
        for allowance in self.allowances:
            if allowance is not None:
                allowance.take_all()
        self.others = {}

    def retry_after_s(self, kind: Kind, tokens: int, now: float) -> float:
        """When to ask again, as far as can be told from here; seconds."""
        allowance = self.allowances[KINDS.index(kind)]
        if allowance is None or kind == "concurrency":
            return 1.0
        wait_s = allowance.fresh_in(self.need(allowance, kind, tokens), now)
        # What others have spent cools too, when is not known here.
        return wait_s if math.isfinite(wait_s) else 5.0

    def is_pressed(self, now: float) -> bool:
        """Whether another exchange soon may change what is let in here."""
        return any(
            allowance is not None
            and (allowance.missed > 0 or allowance.want > 0 or 2 * allowance.left(now) < allowance.held)
            for allowance in self.allowances
        )

    def left(self, kind: Kind, now: float) -> int | None:
        """What is left of a limit, of all processes together and as far as was heard; None where there is none."""
        allowance = self.allowances[KINDS.index(kind)]
        if allowance is None:
            return None
        return max(0, min(allowance.limit, max(0, allowance.left(now)) + allowance.left_elsewhere))

    # What is published.

    def plan(self, alive: int, now: float, *, may_claim: bool) -> bytes:
        """What to publish now."""
        shares = [
            None
            if allowance is None
            else allowance.plan(shares_of(self.others, index), alive, now, may_claim=may_claim)
            for index, allowance in enumerate(self.allowances)
        ]
        self.touched_at = now
        self.changed = False
        return _encode(shares)

    def settle(self, others: Mapping[str, Shares]) -> None:
        """It was published, and this is what the others had published then."""
        self.others = others
        self.wanted = any(share is not None and share.want > 0 for shares in others.values() for share in shares)
        for index, allowance in enumerate(self.allowances):
            if allowance is not None and allowance.settle(shares_of(others, index)):
                self.changed = True

    def forget_claims(self) -> None:
        """Whether it was published is not known."""
        self.changed = True
        for allowance in self.allowances:
            if allowance is not None:
                allowance.forget_claim()

    @property
    def wants(self) -> bool:
        """Whether others are to hear that more is wanted here."""
        return any(allowance is not None and allowance.want > 0 for allowance in self.allowances)

    def leave(self) -> bytes:
        """What to publish at the end: nothing is held but what still cools."""
        return _encode(
            [
                None if allowance is None or index == 2 else Share(max(0, allowance.spent), 0)
                for index, allowance in enumerate(self.allowances)
            ]
        )


def shares_of(published: Mapping[str, Shares], index: int) -> list[Share]:
    """What all have published of one limit."""
    return [share for shares in published.values() if (share := shares[index]) is not None]


def read_shares(data: bytes) -> Shares | None:
    """What a process has published; None where it is nothing that can be read."""
    try:
        shares: Shares = _decode(data)
    except (msgspec.DecodeError, ValueError):
        return None
    return shares


def without_fresh(shares: Shares) -> Shares:
    """What counts of a process that is gone: what it spent a while ago; what ran there has ended."""
    requests, tokens, _ = shares
    return _spent(requests), _spent(tokens), None


def _spent(share: Share | None) -> Share | None:
    return None if share is None else Share(max(0, share.held - share.fresh), 0)


def _following(allowance: Allowance | None, limit: int | None, window_s: float | None) -> Allowance | None:
    if limit is None:
        return None
    if allowance is None:
        return Allowance(limit, window_s=window_s)
    allowance.limit = limit
    return allowance
