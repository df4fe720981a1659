"""Orders as every gateway knows them, whatever it hears first and whatever the clocks do."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.orders.book import OrderBook
from gateway.orders.forced import Forced
from gateway.orders.order import ALL, LONGEST_S, Order, newer

NOW_MS = 1_700_000_000_000

orders = st.builds(
    Order,
    id=st.sampled_from("pqrs"),
    target=st.just("acme"),
    at_ms=st.integers(0, 3),
    until_ms=st.just(NOW_MS + 60_000),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Order]:
    """Orders for one target, each id of one order, some of them taken back."""
    given_ = {order.id: order for order in draw(st.lists(orders, min_size=1, max_size=4))}
    taken_back = draw(st.sets(st.sampled_from(sorted(given_))))
    return [*given_.values(), *(msgspec.structs.replace(given_[id], over=True) for id in sorted(taken_back))]


def book(*known: Order, server_ms: int = NOW_MS, now: float = 0.0) -> OrderBook:
    made = OrderBook()
    made.take(known, server_ms, now)
    return made


def order(target: str = "acme", *, at_ms: int = NOW_MS, for_s: float = 60, id: str = "p", **more: bool) -> Order:
    return Order(id=id, target=target, at_ms=at_ms, until_ms=at_ms + round(for_s * 1000), **more)


@given(histories())
def test_all_gateways_come_to_the_same_in_whatever_sequence_they_hear(history: list[Order]) -> None:
    found = set()
    for sequence in itertools.islice(itertools.permutations(history), 50):
        (last,) = book(*sequence, *sequence).entries(["acme"])
        found.add(last)
    assert len(found) == 1


@given(orders, orders, orders)
def test_which_of_two_holds_is_no_matter_of_sequence(one: Order, two: Order, three: Order) -> None:
    if one.id != two.id:
        assert newer(one, two) == newer(two, one)
    if len({one.id, two.id, three.id}) == 3:
        assert newer(newer(one, two), three) == newer(one, newer(two, three))


def test_an_order_ends_when_the_store_says_however_this_machines_clock_stands() -> None:
    known = book(order(for_s=60), server_ms=NOW_MS + 20_000, now=5000.0)
    assert [one.left_s for one in known.standing(5000.0)] == [40]
    assert known.ends(5039.9) == {"acme": 5040.0}
    assert known.ends(5040.0) == {}


@given(st.integers(-(10**9), 10**9))
def test_a_jump_of_the_stores_clock_moves_no_order_that_is_known(jump_ms: int) -> None:
    known = book(order(for_s=60))
    known.take([order(for_s=60)], NOW_MS + jump_ms, 10.0)
    assert known.ends(10.0) == {"acme": 60.0}
    assert known.ends(60.0) == {}


def test_no_order_lasts_longer_than_the_longest_that_can_be_given() -> None:
    assert book(order(for_s=LONGEST_S * 3)).ends(0.0) == {"acme": LONGEST_S}


def test_one_that_is_over_when_it_is_heard_of_never_holds() -> None:
    assert not book(order(for_s=1), server_ms=NOW_MS + 1000).standing(0.0)


def test_a_later_order_takes_the_place_of_the_first_even_where_the_clock_stood_still() -> None:
    known = book(order(for_s=600))
    known.issue("q", "acme", 10, NOW_MS, 0.0, reason="")
    assert known.ends(0.0) == {"acme": 10.0}
    # What the store still says is older.
    known.take([order(for_s=600)], NOW_MS, 1.0)
    assert known.ends(1.0) == {"acme": 10.0}


def test_what_the_store_has_lost_is_written_again_and_what_was_taken_back_too() -> None:
    first, second = order(), order("globex", id="q")
    known = book(first, second)
    assert known.lacking({}, 1.0) == [first, second]
    assert known.lacking({"acme": first, "globex": second}, 1.0) == []
    known.take_back("acme", 1.0)
    (tombstone,) = known.lacking({"acme": first, "globex": second}, 1.0)
    assert (tombstone.target, tombstone.over) == ("acme", True)
    # An old backup brings it back, and it stays taken back.
    known.take([first], NOW_MS, 2.0)
    assert list(known.ends(2.0)) == ["globex"]
    assert known.lacking({}, 60.0) == []


def test_taking_back_all_takes_back_each() -> None:
    known = book(order(), order("globex", id="q"), order(ALL, id="r"))
    assert [one.target for one in known.take_back("acme", 1.0)] == ["acme"]
    assert [one.target for one in known.take_back(ALL, 1.0)] == [ALL, "globex"]
    assert known.ends(1.0) == {}


def test_nothing_is_kept_of_orders_that_are_over_and_gone_from_the_store() -> None:
    known = book(order())
    known.forget({"acme": order()}, 61.0)
    known.take([order()], NOW_MS - 3_600_000, 61.0)
    assert known.ends(61.0) == {}
    known.forget({}, 61.0)
    assert not known._orders
    assert not known._ends


def test_the_request_path_asks_for_the_customer_and_for_all() -> None:
    forced = Forced()
    assert not forced.holds("acme", 0.0)
    forced.ends = {"acme": 10.0}
    assert [forced.holds("acme", now) for now in (9.9, 10.0)] == [True, False]
    assert not forced.holds("globex", 9.9)
    forced.ends = {"acme": 10.0, ALL: 20.0}
    assert [forced.holds("acme", now) for now in (15.0, 20.0)] == [True, False]
