"""Which box of an adapter's a request goes to: its home, unless that costs more than another one."""

from __future__ import annotations

from gateway.fleet.box_load import SILENT_AT_FIRST, BoxLoad
from gateway.fleet.concurrency_limit import INITIAL
from gateway.fleet.routing import LESS_BUSY, WORTH_A_SWAP, Fit, fit, route


class Box:
    def __init__(self, name: str, *running: str, silent: int = 0, slots: int = 2) -> None:
        self.name = name
        self.load = BoxLoad(slots)
        for number, adapter in enumerate(running):
            self.load.began(adapter, streamed=number < silent)


def first(boxes: list[Box], homes: int = 1, adapter: str = "acme") -> str:
    ordered = route(boxes, homes, adapter)
    assert sorted(box.name for box in ordered) == sorted(box.name for box in boxes)
    return ordered[0].name


def test_the_home_is_asked_first() -> None:
    assert first([Box("home", "x", "x"), Box("other")]) == "home"


def test_there_is_room_where_a_slot_is_free_or_the_adapter_runs() -> None:
    assert fit(Box("home", "x"), "acme", home_is_full=False) is Fit.ROOM
    assert fit(Box("home", "x", "acme"), "acme", home_is_full=False) is Fit.ROOM
    assert fit(Box("home", "x", "y"), "acme", home_is_full=False) is Fit.FULL


def test_where_a_full_home_would_save_a_swap_room_elsewhere_is_second_choice() -> None:
    assert fit(Box("other", "z"), "acme", home_is_full=True) is Fit.ASTRAY
    assert fit(Box("other", "y", "z"), "acme", home_is_full=True) is Fit.FULL


def test_a_box_that_still_has_the_adapter_in_a_slot_swaps_nothing() -> None:
    other = Box("other", "acme")
    other.load.attempts.ended("acme", silent=False)
    assert fit(other, "acme", home_is_full=True) is Fit.ROOM


def test_a_box_has_no_room_where_enough_run_or_are_silent() -> None:
    assert fit(Box("home", *["acme"] * SILENT_AT_FIRST, silent=SILENT_AT_FIRST), "acme", home_is_full=False) is Fit.FULL
    assert fit(Box("home", *["acme"] * INITIAL), "acme", home_is_full=False) is Fit.FULL
    assert fit(Box("home", *["acme"] * (INITIAL - 1)), "acme", home_is_full=False) is Fit.ROOM


def full(*running: str) -> Box:
    """A home whose slots others hold, none of whom has anything in flight any more but ``running``."""
    home = Box("home", "v", "w")
    for adapter in ("v", "w"):
        home.load.attempts.ended(adapter, silent=False)
    for adapter in running:
        home.load.began(adapter, streamed=False)
    return home


def test_a_box_that_has_the_adapter_saves_a_swap_unless_many_more_are_silent_there() -> None:
    assert first([full(), Box("other", "acme")]) == "other"
    assert first([full(), Box("other", *["acme"] * 2, silent=WORTH_A_SWAP)]) == "other"
    assert first([full(), Box("other", *["acme"] * 3, "z", silent=WORTH_A_SWAP + 1)]) == "home"


def test_an_adapter_comes_home_to_a_free_slot_unless_it_is_busier_there() -> None:
    elsewhere = Box("other", "acme")
    elsewhere.load.attempts.ended("acme", silent=False)
    assert first([Box("home"), elsewhere]) == "home"
    assert first([Box("home", "x"), elsewhere]) == "other"


def test_of_two_boxes_that_have_the_adapter_the_home_is_asked_unless_others_are_silent_there() -> None:
    assert first([Box("home", "acme", "acme"), Box("other", "acme")]) == "home"
    assert first([Box("home", "acme", "acme", silent=1), Box("other", "acme")]) == "other"
    assert first([Box("home", "acme", "acme", silent=1), Box("other", "acme", silent=1)]) == "other"
    assert first([Box("home", "acme", silent=1), Box("other", "acme", silent=1)]) == "home"


def test_a_swap_that_is_due_anyway_is_made_where_it_keeps_nobody_waiting() -> None:
    reading = ["x"] * (LESS_BUSY + 1)
    assert first([Box("home", *reading, silent=1, slots=3), Box("other", "y", slots=3)]) == "other"
    assert first([Box("home", *reading, slots=3), Box("other", "y", slots=3)]) == "home"
    assert first([Box("home", "x", silent=1, slots=3), Box("other", "y", slots=3)]) == "home"


def test_a_slot_that_is_free_is_taken_before_one_that_somebody_would_lose() -> None:
    home = Box("home", "x", "y")
    for adapter in ("x", "y"):
        home.load.attempts.ended(adapter, silent=False)
    assert first([home, Box("other", "z")]) == "other"
    assert first([home, Box("other", "z", "w", slots=3)]) == "other"
    assert first([home, Box("other", "z", "w")]) == "home"


def test_of_two_homes_the_one_with_fewer_silent_requests_is_asked() -> None:
    busy = Box("a", "acme", silent=1)
    assert first([busy, Box("b", "acme", "acme", "acme")], homes=2) == "b"
