"""An adapter that others keep out of a box's slots gets its turn there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.box_load import BoxLoad
from gateway.fleet.turns import RESERVED_S, REST_S, TURN_AFTER_S, Turns


def load(slots: int, *running: str) -> BoxLoad:
    found = BoxLoad(slots)
    for adapter in running:
        found.began(adapter, streamed=False)
    return found


def test_nobody_is_closed_for_who_has_been_turned_away_for_a_moment() -> None:
    box = load(2, "x", "y")
    box.denied("cold", 0.0)
    box.denied("cold", TURN_AFTER_S - 0.1)
    assert box.turns.reservation is None
    assert box.has_slot("x")


def test_who_was_turned_away_for_long_gets_the_next_slot_of_the_one_with_least_in_flight() -> None:
    box = load(2, "x", "x", "y")
    box.denied("cold", 0.0)
    box.denied("cold", TURN_AFTER_S)
    assert not box.has_slot("y"), "closed until the cold one is in"
    assert box.has_slot("x")
    assert not box.has_slot("cold"), "y still runs"
    box.attempts.ended("y", silent=False)
    assert box.has_slot("cold")
    assert not box.has_slot("another"), "the slot is kept"
    box.began("cold", streamed=False)
    box.turns.served("cold")
    assert not box.has_slot("y"), "it waits for a slot as all others do"
    box.attempts.ended("x", silent=False)
    box.attempts.ended("x", silent=False)
    assert box.has_slot("y")


def test_a_reservation_that_nobody_comes_for_ends() -> None:
    box = load(1, "x")
    box.denied("cold", 0.0)
    box.denied("cold", TURN_AFTER_S)
    box.turns.expire(TURN_AFTER_S + RESERVED_S)
    assert box.has_slot("x")
    box.denied("cold", TURN_AFTER_S + RESERVED_S + 1)
    assert box.turns.reservation is None, "its time begins anew"


def test_who_had_to_make_room_is_spared_the_next_time() -> None:
    turns = Turns()
    in_flight = {"x": 1, "y": 2}
    for number, adapter in enumerate(("first", "second")):
        at = number * (TURN_AFTER_S + 1)
        turns.denied(adapter, in_flight, at, lambda name: False)
        turns.denied(adapter, in_flight, at + TURN_AFTER_S, lambda name: False)
        assert turns.reservation is not None
        assert turns.reservation.closed == ("x", "y")[number]
        turns.served(adapter)


def test_who_is_turned_away_for_another_reason_than_a_slot_closes_nobody() -> None:
    box = load(8, "x")
    box.denied("cold", 0.0)
    box.denied("cold", TURN_AFTER_S + 1)
    assert box.turns.reservation is None


EVENTS = st.lists(
    st.tuples(st.sampled_from(["denied", "served", "begin", "end"]), st.sampled_from("abcdef"), st.floats(0, 5)),
    max_size=80,
)


@given(events=EVENTS, slots=st.integers(1, 3))
def test_never_more_adapters_are_let_in_than_there_are_slots_and_all_is_forgotten_in_the_end(
    events: list[tuple[str, str, float]], slots: int
) -> None:
    box, now = load(slots), 0.0
    for what, adapter, passed_s in events:
        now += passed_s
        box.turns.expire(now)
        if what == "begin" and box.has_slot(adapter):
            box.began(adapter, streamed=False)
            box.turns.served(adapter)
        elif what == "denied" and not box.has_slot(adapter):
            box.denied(adapter, now)
        elif what == "end" and box.attempts.of(adapter):
            box.attempts.ended(adapter, silent=False)
        assert box.attempts.distinct <= slots
        if (reservation := box.turns.reservation) is not None:
            assert reservation.adapter != reservation.closed
            assert now < reservation.until
    for adapter, count in list(box.attempts.adapters.items()):
        for _ in range(count):
            box.attempts.ended(adapter, silent=False)
    box.turns.expire(now + RESERVED_S + REST_S)
    assert all(box.has_slot(adapter) for adapter in "abcdef")
