"""Several processes with limits on one store, in one process and in virtual time."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from gateway.accounts.account import Terms, Ticket
from gateway.accounts.exchange import Ask, Told
from gateway.accounts.limits import EXCHANGE_S, WAIT_S, Limits
from gateway.accounts.others import VISITOR

KEY = "acme"


class StoreModel:
    """What Redis does with an exchange, all of it at once."""

    def __init__(self) -> None:
        self.published: dict[str, dict[str, bytes]] = {}
        self.beats: dict[str, int] = {}
        self.wanted: set[str] = set()
        self.away = False

    def exchange(self, ask: Ask) -> Told:
        if ask.beat:
            self.beats[ask.me] = ask.beat
        for name in (*ask.gone, *([ask.me] if ask.leaves else [])):
            self.beats.pop(name, None)
        for key, data in ask.published.items():
            self.published.setdefault(key, {})[ask.me] = data
            for name in ask.gone:
                self.published[key].pop(name, None)
        self.wanted |= set(ask.wanted)
        self.wanted -= set(ask.unwanted)
        seen = {key: dict(self.published[key]) for key in ask.published}
        return Told(seen, dict(self.beats), sorted(self.wanted), {})

    def flush(self) -> None:
        self.published, self.beats, self.wanted = {}, {}, set()


class Several:
    """``count`` processes with the limits ``terms``; ``run`` lets time pass, ``ask`` is one request."""

    def __init__(self, count: int, terms: Terms, *, seed: int = 0, start: float = 1000.0) -> None:
        self.store = StoreModel()
        self.now = start
        self._random = random.Random(seed)
        self.terms = terms
        self.processes: list[Limits] = []
        self.next: list[float] = []
        self.admitted: deque[tuple[float, int]] = deque()
        self.leaving: deque[tuple[float, Callable[[], None]]] = deque()
        for _ in range(count):
            self.join()

    def join(self, *, visits: bool = False) -> Limits:
        limits = Limits(f"{VISITOR if visits else ''}p{len(self.processes)}", shared=True)
        limits.follow({KEY: self.terms})
        self.processes.append(limits)
        self.next.append(self.now + self._random.random() * EXCHANGE_S)
        return limits

    def run(self, until: float) -> None:
        while True:
            due = min(range(len(self.next)), key=self.next.__getitem__)
            if self.next[due] > until:
                self.now = until
                return
            self.now = self.next[due]
            while self.leaving and self.leaving[0][0] < self.now:
                self.leaving.popleft()[1]()
            self.tick(self.processes[due])
            self.next[due] = self.now + EXCHANGE_S * (0.8 + 0.4 * self._random.random())

    def tick(self, limits: Limits) -> None:
        for _ in range(3):
            ask = limits.ask(self.now)
            if ask is None or self.store.away:
                limits.unheard()
                return
            limits.told(self.store.exchange(ask), self.now)
            if not limits.urgent:
                return

    def ask(self, process: int, tokens: int = 0) -> Ticket | None:
        limits = self.processes[process]
        found = limits.enter(KEY, tokens, self.now)
        if isinstance(found, Ticket):
            self.admitted.append((self.now, tokens))
            return found
        if limits.may_wait(KEY, tokens, self.now):
            self._wait(limits, tokens)
        else:
            limits.refused(KEY, tokens)
        return None

    def _wait(self, limits: Limits, tokens: int) -> None:
        until = self.now + WAIT_S

        def wake() -> None:
            leave()
            if isinstance(limits.enter(KEY, tokens, self.now), Ticket):
                self.admitted.append((self.now, tokens))

        leave = limits.wait(KEY, tokens, wake)
        self.leaving.append((until, leave))

    def most_in_a_window(self, *, tokens: bool = False) -> int:
        most = total = 0
        window: deque[tuple[float, int]] = deque()
        for at, amount in self.admitted:
            one = amount if tokens else 1
            window.append((at, one))
            total += one
            while window[0][0] <= at - 60.0:
                total -= window.popleft()[1]
            most = max(most, total)
        return most
