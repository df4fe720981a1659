"""Processes that share a limit admit together what it says, whatever reaches whom."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.accounts.account import Terms, Ticket
from tests.accounts import several as processes
from tests.accounts.several import KEY, Several

SETTLE_S = 4.0

bursts = st.lists(
    st.tuples(
        st.integers(0, 7),  # who
        st.integers(1, 120),  # how many requests
        st.sampled_from([0.0, 0.01, 0.2, 1.0, 7.0, 31.0, 61.0]),  # seconds to the next burst
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.sampled_from([1, 7, 60, 600]), bursts, st.integers(0, 1000))
def test_no_minute_sees_more_requests_than_the_limit(
    count: int, limit: int, traffic: list[tuple[int, int, float]], seed: int
) -> None:
    several = Several(count, Terms(requests=limit), seed=seed)
    several.run(several.now + SETTLE_S)
    for who, requests, pause_s in traffic:
        for _ in range(requests):
            several.ask(who % count)
        several.run(several.now + pause_s)
    assert several.most_in_a_window() <= limit


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), bursts, st.integers(0, 1000))
def test_no_minute_sees_more_tokens_than_the_limit_where_estimates_hold(
    count: int, traffic: list[tuple[int, int, float]], seed: int
) -> None:
    several = Several(count, Terms(tokens=20_000), seed=seed)
    several.run(several.now + SETTLE_S)
    sizes = random.Random(seed)
    for who, requests, pause_s in traffic:
        for _ in range(requests):
            several.ask(who % count, tokens=sizes.choice([30, 400, 3000]))
        several.run(several.now + pause_s)
    assert several.most_in_a_window(tokens=True) <= 20_000


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("where", ["evenly", "at one", "unevenly"])
def test_under_steady_demand_over_the_limit_at_least_95_percent_of_it_is_admitted(count: int, where: str) -> None:
    limit, pick = 240, random.Random(count)
    several = Several(count, Terms(requests=limit), seed=count)
    several.run(several.now + SETTLE_S)
    began = several.now
    for n in range(3000):
        several.run(began + n / 12)
        who = {"evenly": pick.randrange(count), "at one": 0, "unevenly": min(count, int(pick.paretovariate(1))) - 1}
        several.ask(who[where])
    assert several.most_in_a_window() <= limit
    last_three_minutes = sum(at >= several.now - 180 for at, _ in several.admitted)
    assert last_three_minutes >= 0.95 * 3 * limit


def test_a_burst_at_one_of_four_gets_the_whole_limit_of_a_customer_that_was_idle() -> None:
    several = Several(4, Terms(requests=100))
    several.run(several.now + SETTLE_S)
    for _ in range(150):
        several.ask(0)
    several.run(several.now + 1)
    assert 95 <= len(several.admitted) <= 100


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=150), st.integers(0, 1000))
def test_never_more_run_at_once_than_the_limit(count: int, steps: list[tuple[int, bool]], seed: int) -> None:
    several = Several(count, Terms(concurrency=5), seed=seed)
    several.run(several.now + SETTLE_S)
    running: list[Ticket] = []
    for who, begins in steps:
        if begins:
            found = several.processes[who % count].enter(KEY, 0, several.now)
            if isinstance(found, Ticket):
                running.append(found)
        elif running:
            running.pop(0).end(0, several.now)
        assert len(running) <= 5
        several.run(several.now + 0.03)


def test_what_ran_is_free_for_the_others_once_it_has_ended() -> None:
    several = Several(2, Terms(concurrency=4))
    several.run(several.now + SETTLE_S)
    first, _ = several.processes
    held = [first.enter(KEY, 0, several.now) for _ in range(2)]
    for ticket in held:
        assert isinstance(ticket, Ticket)
        ticket.end(0, several.now)
    for _ in range(4):
        several.ask(1)
        several.run(several.now + 0.5)
    assert len(several.admitted) == 4


def test_tokens_that_were_not_used_are_free_at_once_and_those_that_were_more_are_owed() -> None:
    several = Several(1, Terms(tokens=1000))
    several.run(several.now + SETTLE_S)
    first = several.ask(0, tokens=900)
    assert first is not None
    assert several.ask(0, tokens=200) is None
    first.end(100, several.now)
    second = several.ask(0, tokens=200)
    assert second is not None
    second.end(1500, several.now)
    assert several.ask(0, tokens=1) is None
    several.run(several.now + 61)
    assert several.ask(0, tokens=1000) is not None


def test_a_request_larger_than_the_limit_is_let_in_where_all_of_it_is_left() -> None:
    several = Several(1, Terms(tokens=1000))
    several.run(several.now + SETTLE_S)
    assert several.ask(0, tokens=5000) is not None
    assert several.ask(0, tokens=1) is None


def test_while_the_store_is_away_each_goes_on_with_its_share_and_says_so() -> None:
    several = Several(4, Terms(requests=100))
    several.run(several.now + SETTLE_S)
    several.store.away = True
    several.run(several.now + 5)
    assert all(one.on_its_own(several.now) for one in several.processes)
    for who in range(4):
        for _ in range(60):
            several.ask(who)
    assert len(several.admitted) == 100
    several.store.away = False
    several.run(several.now + 70)
    assert not any(one.on_its_own(several.now) for one in several.processes)
    for n in range(1200):
        several.ask(n % 4)
        several.run(several.now + 0.05)
    assert 0.95 * 100 <= several.most_in_a_window() <= 100


def test_while_the_store_is_away_one_that_had_little_gets_an_equal_share_once_the_others_use_has_cooled() -> None:
    several = Several(2, Terms(requests=100))
    several.run(several.now + SETTLE_S)
    for _ in range(100):
        several.ask(0)
    several.run(several.now + 1)
    several.store.away = True
    several.run(several.now + 30)
    assert [several.ask(1) is not None for _ in range(20)].count(True) <= 2
    several.run(several.now + 65)
    assert [several.ask(1) is not None for _ in range(60)].count(True) == 50


def test_a_store_that_was_emptied_lets_nobody_over_the_limit() -> None:
    several = Several(3, Terms(requests=90))
    several.run(several.now + SETTLE_S)
    for n in range(2400):
        several.ask(n % 3)
        if n == 1000:
            several.store.flush()
        several.run(several.now + 0.05)
    assert several.most_in_a_window() <= 90


def test_what_a_process_held_that_was_killed_is_the_others_some_seconds_later() -> None:
    several = Several(2, Terms(requests=100))
    several.run(several.now + SETTLE_S)
    several.next[1] = float("inf")  # it exchanges nothing any more
    several.run(several.now + 10)
    for _ in range(150):
        several.ask(0)
    several.run(several.now + 1)
    assert len(several.admitted) == 100


def test_a_process_that_ends_in_order_leaves_what_it_had_at_once() -> None:
    several = Several(2, Terms(requests=100))
    several.run(several.now + SETTLE_S)
    for _ in range(30):
        several.ask(1)
    several.store.exchange(several.processes[1].leave())
    several.next[1] = float("inf")
    several.run(several.now + 1)
    for _ in range(150):
        several.ask(0)
    several.run(several.now + 1)
    assert len(several.admitted) == 100


def test_one_that_joins_gets_its_share_of_what_is_idle() -> None:
    several = Several(1, Terms(requests=100))
    several.run(several.now + SETTLE_S)
    joined = several.join()
    several.run(several.now + 2)
    assert joined.accounts[KEY].allowances[0] is not None
    assert joined.accounts[KEY].allowances[0].held == 50


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 1000))
def test_with_a_visitor_no_more_run_at_once_than_the_limit(
    count: int, limit: int, askers: list[int], seed: int
) -> None:
    several = Several(count, Terms(concurrency=limit), seed=seed)
    several.join(visits=True)
    several.run(several.now + SETTLE_S)
    rng, running = random.Random(seed), list[Ticket]()
    for who in askers:
        found = several.processes[min(who, count)].enter(KEY, 0, several.now)
        if isinstance(found, Ticket):
            running.append(found)
        else:
            several.processes[min(who, count)].refused(KEY, 0)
        assert len(running) <= limit
        if running and rng.random() < 0.4:
            running.pop(rng.randrange(len(running))).end(0, several.now)
        several.run(several.now + rng.random())


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_a_visitor_gets_a_permit_that_others_hold_idly_and_gives_it_back(limit: int) -> None:
    several = Several(2, Terms(concurrency=limit))
    visitor = several.join(visits=True)
    several.run(several.now + SETTLE_S)
    # It keeps nothing for itself, and its share is nobody's loss.
    shares = [limits.accounts[KEY].allowances[2] for limits in several.processes]
    held = [0 if one is None else one.held for one in shares]
    assert held[2] == 0
    assert sum(held) >= limit - limit % 2

    got: list[Ticket] = []

    def wake() -> None:
        found = visitor.enter(KEY, 0, several.now)
        if isinstance(found, Ticket):
            got.append(found)
            leave()

    assert visitor.may_wait(KEY, 0, several.now)
    leave = visitor.wait(KEY, 0, wake)
    several.run(several.now + 1.0)
    (ticket,) = got
    ticket.end(0, several.now)
    several.run(several.now + SETTLE_S)
    for who in (0, 1):
        # All of it can be had again by who asks.
        several.run(several.now + SETTLE_S)
        tickets = list[Ticket]()
        for _ in range(200):
            found = several.processes[who].enter(KEY, 0, several.now)
            if isinstance(found, Ticket):
                tickets.append(found)
            else:
                several.processes[who].refused(KEY, 0)
            several.run(several.now + 0.05)
        assert len(tickets) == limit
        for one in tickets:
            one.end(0, several.now)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_who_joins_is_ready_once_it_has_enough_to_begin_with(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine so busy that others are seen to live before they have given up anything.
    monkeypatch.setattr(processes, "EXCHANGE_S", 0.45)
    several = Several(count, Terms(requests=60, concurrency=24))
    several.run(several.now + SETTLE_S)
    joined = several.join()
    began = several.now
    while not joined.accounts[KEY].touched_at or not joined.is_settled(several.now):
        several.run(several.now + 0.02)
        assert several.now < began + 5.0, "the start is not to be held up for longer"
    for allowance in joined.accounts[KEY].allowances:
        assert allowance is None or allowance.left(several.now) >= allowance.limit // (count + 1) / 2
