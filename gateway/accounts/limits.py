"""All limits of one process: lets requests in, says what is to be exchanged with the others, and takes in their news.

Pure: the clock is handed in, and who does the exchange is another's business. Without others to share with (``shared``
false) everything is ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from gateway.accounts.account import Account, Kind, Terms, Ticket
from gateway.accounts.allowance import WINDOW_S
from gateway.accounts.exchange import Ask, Told
from gateway.accounts.others import BEAT_S, DEAD_S, VISITOR, Others

EXCHANGE_S = 0.1
"""From one exchange to the next while somebody runs short."""

QUIET_S = 1.0
"""The same for what was spent where all have enough."""

RENEW_S = 1200.0
"""So often everything is published anew, before the store forgets it (``account_store.KEEP_S``)."""

SILENT_S = 1.0
"""Without news for so long a process goes on with the share that it had, and nobody waits for more. After a window,
when nothing counts any more of what the others had spent then, an equal share is its own where that is more."""

WAIT_S = 0.3
"""So long a request may wait for what others can give up: they hear of it with their next exchange, and we with the one
after that."""

FRESH_NEWS_S = 0.25
"""What was heard of the others longer ago does not turn a request away before it was asked again."""

MOST_WAITING = 1000
"""Of one account."""

YOUNG_S = 2.0
"""So old a process is sure to have asked for its share, whoever was found dead meanwhile."""

MOST_AT_ONCE = 200
"""Accounts in one exchange."""

FLUSHED_S = 2.0
"""After the store has lost everything nobody claims until all have had the time to say what they hold."""

CROWD = 1 << 40
"""As if so many lived: of what a visitor shares its equal part is nothing."""

NONE_MADE: Mapping[str, Account] = {}

Waiter = Callable[[], None]


class Limits:
    """``me``: the process's name among the others; ``others``: how many there were when it was last heard.

    One whose name begins with ``VISITOR`` holds what it has asked for, and no share beyond.
    """

    def __init__(self, me: str, *, shared: bool) -> None:
        self.me = me
        self.others = Others(me)
        self.accounts: dict[str, Account] = {}
        self._shared = shared
        self._waiting: dict[str, deque[tuple[int, Waiter]]] = {}
        self._began: float | None = None
        self._heard_at: float | None = None
        self._first_heard_at: float | None = None
        self._beat = 0
        self._beat_at: float | None = None
        self._listed = False
        self._flushed_at: float | None = None
        self.urgent = False
        """Whether another exchange is due at once, as somebody waits for what may be here."""
        self._asked: list[Account] = []
        self._wanted: set[str] = set()
        self._unwanted: list[str] = []
        self._visits = me.startswith(VISITOR)
        self._alive = CROWD if self._visits else 1
        self._unsure = False

    def follow(self, terms: Mapping[str, Terms], made: Mapping[str, Account] = NONE_MADE) -> None:
        """These are the accounts, by key. ``made``: new ones, as far as somebody has made them before."""
        for key in self.accounts.keys() - terms.keys():
            del self.accounts[key]
        for key, one in terms.items():
            if (account := self.accounts.get(key)) is None:
                self.add(key, one, made.get(key))
                continue
            account.follow(one)
            if not self._shared:
                account.take_all()

    def add(self, key: str, terms: Terms, made: Account | None = None) -> None:
        """One account more."""
        account = self.accounts[key] = Account(key, terms) if made is None else made
        if not self._shared:
            account.take_all()

    # Requests.

    def enter(self, key: str, tokens: int, now: float, *, waits: bool = True) -> Ticket | Kind | None:
        """Let a request in that is reckoned to take ``tokens``: its ticket, or the limit that it is over. None where
        there are no limits. ``waits``: where not, an equal share is ours until we have had the time to ask for it."""
        account = self.accounts.get(key)
        if account is None:
            return None
        lacking = self.lacking(account, tokens, now, waits=waits)
        if lacking is None:
            return self._admit(account, tokens, now)
        return lacking

    def lacking(self, account: Account, tokens: int, now: float, *, waits: bool = True) -> Kind | None:
        """The limit that a request would be over; see :meth:`enter`."""
        equal_share = self.has_equal_share(now)
        if not waits and not equal_share:
            equal_share = self._first_heard_at is None or now - self._first_heard_at < YOUNG_S
        return account.lacks(tokens, now, equal_share=equal_share)

    def may_wait(self, key: str, tokens: int, now: float) -> bool:
        """Whether a request that was not let in is worth a wait for the next exchanges."""
        account = self.accounts.get(key)
        if account is None or not self._shared or self.on_its_own(now):
            return False
        ahead = self._ahead(key)
        if ahead[0] >= MOST_WAITING:
            return False
        touched_at = account.touched_at
        is_news = touched_at is not None and now - touched_at <= FRESH_NEWS_S
        return not is_news or account.may_come(tokens, now, ahead=ahead)

    def is_settled(self, now: float) -> bool:
        """Whether it is known who else is there, and enough of what they had is here."""
        return self.others.known(now) and all(account.has_begun for account in self.accounts.values())

    def wait(self, key: str, tokens: int, wake: Waiter) -> Waiter:
        """``wake`` is called when there may be enough; the result is to be called when nobody waits any more."""
        account = self.accounts[key]
        account.missed(tokens)
        line = self._waiting.setdefault(key, deque())
        place = tokens, wake
        line.append(place)

        def leave() -> None:
            if place in line:
                line.remove(place)
            if not line and self._waiting.get(key) is line:
                del self._waiting[key]

        return leave

    def refused(self, key: str, tokens: int) -> None:
        """A request was turned away: that, too, is demand."""
        if (account := self.accounts.get(key)) is not None:
            account.missed(tokens)

    def on_its_own(self, now: float) -> bool:
        """Whether the others were not heard of for so long that they are not reckoned with."""
        if not self._shared:
            return False
        if self._began is None:
            self._began = now
        return now - (self._began if self._heard_at is None else self._heard_at) > SILENT_S

    def has_equal_share(self, now: float) -> bool:
        """Whether an equal share is ours in any case: nothing was ever heard of the others, or not for a window."""
        return self.on_its_own(now) and (self._heard_at is None or now - self._heard_at > WINDOW_S)

    def _admit(self, account: Account, tokens: int, now: float) -> Ticket:
        need = tokens
        if (allowance := account.allowances[1]) is not None:
            need = account.need(allowance, "tokens", tokens)
        account.changed = True
        return Ticket(account, need, now)

    # Exchanges.

    def ask(self, now: float) -> Ask:
        """What is to be exchanged now. Its answer is due to :meth:`told` or :meth:`unheard`."""
        if not self._shared:
            return Ask(self.me, 0, {}, [], [], [], None, "", [])
        if self._began is None:
            self._began = now
        beats = self._beat_at is None or now - self._beat_at >= BEAT_S
        if beats:
            self._beat += 1
            self._beat_at = now
        if self._was_taken_for_dead(now):
            self._unsure = True
        # While nobody answers nothing is divided anew: who wants what is not known.
        due = [] if self._unsure else [account for account in self.accounts.values() if self._is_due(account, now)]
        self._asked = due[:MOST_AT_ONCE]
        for key in self._waiting.keys() & self.accounts.keys():
            self.accounts[key].waited_for(self._ahead(key))
        alive = self._alive
        may_claim = self._flushed_at is None or now - self._flushed_at > FLUSHED_S
        for one in self._asked:
            # Somebody may have been found dead since.
            one.others = self.others.counting(one.published, now)
        published = {one.key: one.plan(alive, now, may_claim=may_claim) for one in self._asked}
        wanted = [one.key for one in self._asked if one.wants]
        unwanted = [key for key in self._unwanted if key not in wanted]
        gone = [] if self._unsure else self.others.forgotten(now)
        return Ask(self.me, self._beat if beats else 0, published, wanted, unwanted, gone, None, "", [])

    def told(self, told: Told, now: float) -> None:
        """The answer came."""
        if self._listed and self.me not in told.beats:
            self._flushed_at = now
            for account in self.accounts.values():
                account.touched_at = None
        if self._was_taken_for_dead(now):
            self._give_up_what_is_fresh()
        self._listed = True
        self._unsure = False
        self._heard_at = now
        self._first_heard_at = self._first_heard_at or now
        self.others.hear(told.beats, now)
        alive = CROWD if self._visits else 1 + self.others.alive(now)
        if alive != self._alive:
            self._alive = alive
            for account in self.accounts.values():
                account.touched_at = None
        self._wanted = set(told.wanted)
        asked, self._asked = self._asked, []
        for account in asked:
            account.published = told.published.get(account.key, {})
            account.settle(self.others.counting(account.published, now))
            self._wake(account, now)
        self._unwanted = [one.key for one in asked if one.key in self._wanted and not one.wanted and not one.wants]
        unseen = self._wanted - {account.key for account in asked}
        self.urgent = any(key in self.accounts for key in unseen) or any(one.can_give(now) for one in asked)

    def unheard(self) -> None:
        """No answer came."""
        for account in self._asked:
            account.forget_claims()
        self._asked = []
        self._unsure = True

    def leave(self) -> Ask:
        """What is to be said at the end."""
        published = {key: account.leave() for key, account in self.accounts.items() if account.touched_at is not None}
        return Ask(self.me, 0, published, [], [], [], None, "", [], leaves=True)

    @property
    def is_busy(self) -> bool:
        """Whether the others may hear of something within one exchange: a visitor that holds nothing has nothing."""
        return bool(self.accounts) and not (self._visits and all(one.is_empty for one in self.accounts.values()))

    def waits(self) -> bool:
        """Whether a request waits for the next exchange."""
        return bool(self._waiting)

    def _is_due(self, account: Account, now: float) -> bool:
        touched_at = account.touched_at
        if touched_at is None or account.key in self._wanted or account.key in self._waiting:
            return True
        age_s = now - touched_at
        if account.wants or (account.changed and account.is_pressed(now)):
            return age_s >= EXCHANGE_S / 2
        return age_s >= (QUIET_S if account.changed else RENEW_S)

    def _ahead(self, key: str) -> tuple[int, int]:
        line = self._waiting.get(key, ())
        return len(line), sum(tokens for tokens, _ in line)

    def _wake(self, account: Account, now: float) -> None:
        requests = reserved = 0
        for tokens, wake in tuple(self._waiting.get(account.key, ())):
            ahead = requests, reserved
            # Who waits in vain is told so at once.
            if account.has(tokens, now, ahead=ahead) or not account.may_come(tokens, now, ahead=ahead):
                wake()
            else:
                requests, reserved = requests + 1, reserved + tokens

    def _was_taken_for_dead(self, now: float) -> bool:
        return self._heard_at is not None and now - self._heard_at > DEAD_S - SILENT_S

    def _give_up_what_is_fresh(self) -> None:
        # The others have taken us for dead, and have divided it.
        for account in self.accounts.values():
            for allowance in account.allowances:
                if allowance is not None:
                    allowance.held = min(allowance.held, max(0, allowance.spent))
            account.touched_at = None
