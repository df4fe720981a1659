"""Which box of an adapter's a request goes to: its home, unless that costs more than another one."""

from __future__ import annotations

from gateway.fleet.box_load import BoxLoad
from gateway.fleet.routing import route


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


def test_a_home_whose_slots_are_all_at_work_is_passed_over_for_one_with_two_free() -> None:
    assert first([Box("home", "x", "y"), Box("other")]) == "other"
    assert first([Box("home", "x", "y"), Box("other", "z")]) == "home", "the last slot is its own adapters'"


def test_who_runs_at_the_home_needs_no_further_slot() -> None:
    assert first([Box("home", "acme", "y"), Box("other")]) == "home"


def test_a_box_that_has_the_adapter_saves_a_swap_if_it_is_not_busier() -> None:
    resident = Box("other", "acme")
    assert first([Box("home"), resident]) == "home"
    assert first([Box("home", "x", "x"), resident]) == "other"


def test_of_two_homes_the_one_with_fewer_silent_requests_is_asked() -> None:
    busy = Box("a", "acme", silent=1)
    assert first([busy, Box("b", "acme", "acme", "acme")], homes=2) == "b"


def test_of_many_boxes_only_the_next_two_take_what_has_no_room() -> None:
    full = [Box(name, "x", "y") for name in ("home", "second", "third")]
    assert first([*full, Box("last")]) == "home"
