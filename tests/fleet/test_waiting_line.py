"""Who of those that wait for room is next, and where."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Reason
from gateway.fleet.box_load import BoxLoad
from gateway.fleet.waiting_line import ASTRAY_AFTER_S, RAMP_AFTER_S, Waiter, WaitingLine


@dataclass(eq=False)
class Box:
    name: str
    load: BoxLoad = field(default_factory=lambda: BoxLoad(1))
    down: bool = False
    slow: bool = False
    in_ramp: bool = False
    refuses: bool = False

    def condition(self, adapter: str | None, now: float) -> Reason | None:
        return Reason.CIRCUIT_OPEN if self.down else None

    def saturated(self, adapter: str | None, budget_s: float, now: float) -> bool:
        return self.slow

    def has_its_share(self, now: float) -> bool:
        return self.in_ramp


class House:
    """A line, and who got room where."""

    def __init__(self, *boxes: Box, most: int = 100) -> None:
        self.boxes = boxes
        self.served: list[tuple[str, str]] = []
        self.pushed_out: list[str] = []
        self.line: WaitingLine[Box] = WaitingLine(
            self._take, lambda waiter: self.pushed_out.append(waiter.adapter), most=most
        )

    def _take(self, waiter: Waiter[Box], box: Box, now: float) -> bool:
        if box.refuses:
            return False
        box.load.began(waiter.adapter, streamed=False)
        self.served.append((waiter.adapter, box.name))
        return True

    def enter(self, adapter: str, *, rank: int = 1, now: float = 0.0) -> Waiter[Box]:
        waiter = Waiter(adapter, rank, self.boxes, 2.0, now)
        self.line.enter(waiter, now)
        return waiter

    def end(self, box: Box, adapter: str, now: float = 0.0) -> None:
        box.load.attempts.ended(adapter, silent=False)
        self.line.serve(now)


def busy(*running: str, slots: int = 1, name: str = "a") -> Box:
    box = Box(name, BoxLoad(slots))
    for adapter in running:
        box.load.began(adapter, streamed=False)
    return box


def test_who_finds_room_does_not_wait() -> None:
    house = House(Box("a"))
    house.enter("x")
    assert (house.served, len(house.line)) == ([("x", "a")], 0)


def test_room_goes_to_the_highest_priority_then_to_who_came_first() -> None:
    box = busy("held")
    house = House(box)
    for number, (adapter, rank) in enumerate((("low", 2), ("first", 1), ("second", 1), ("high", 0))):
        house.enter(adapter, rank=rank, now=float(number) / 100)
    previous = "held"
    for adapter in ("high", "first", "second", "low"):
        house.end(box, previous, now=0.05)
        assert house.served[-1] == (adapter, "a")
        previous = adapter


def test_of_one_priority_the_adapter_with_fewest_in_flight_is_next() -> None:
    box = busy("noisy", "noisy", "quiet", slots=8)
    house = House(box)
    box.load.silent_limit = 0
    for _ in range(5):
        house.enter("noisy")
    house.enter("quiet", now=0.01)
    box.load.silent_limit = 100
    house.line.serve(0.02)
    assert [adapter for adapter, _ in house.served[:2]] == ["quiet", "noisy"]


def test_where_the_home_has_no_slot_a_swap_is_due_anyway_and_one_elsewhere_is_taken_at_once() -> None:
    house = House(busy("x"), busy(slots=2, name="b"))
    house.enter("cold")
    assert house.served == [("cold", "b")]


def test_a_home_with_a_slot_and_too_many_before_it_is_waited_for() -> None:
    home, other = busy("x", slots=8), busy(slots=8, name="b")
    home.load.silent_limit = 0
    house = House(home, other)
    house.enter("cold")
    house.line.serve(ASTRAY_AFTER_S - 0.01)
    assert house.served == []
    house.line.serve(ASTRAY_AFTER_S)
    assert house.served == [("cold", "b")]


def test_neither_a_box_that_is_away_nor_one_that_is_slow_is_taken_and_none_of_them_is_a_home_to_wait_for() -> None:
    house = House(Box("a", down=True), Box("b", slow=True), Box("c"))
    house.enter("x")
    assert house.served == [("x", "c")]


def test_a_box_in_its_ramp_is_taken_when_the_others_have_no_room_for_a_while() -> None:
    house = House(busy("y"), Box("b", in_ramp=True))
    house.enter("x")
    assert house.served == []
    house.line.serve(RAMP_AFTER_S)
    assert house.served == [("x", "b")]


def test_who_was_turned_away_by_the_box_after_all_keeps_its_place() -> None:
    box = Box("a", refuses=True)
    house = House(box)
    house.enter("x")
    house.enter("y", now=0.01)
    assert len(house.line) == 2
    box.refuses = False
    house.line.serve(0.02)
    assert house.served == [("x", "a")]


def test_a_line_that_is_too_long_pushes_out_the_lowest_priority_that_came_last() -> None:
    house = House(busy("held"), most=3)
    for adapter, rank in (("low", 2), ("a", 1), ("b", 1)):
        house.enter(adapter, rank=rank)
    house.enter("high", rank=0)
    assert house.pushed_out == ["low"]
    house.enter("another low", rank=2)
    assert house.pushed_out == ["low", "another low"]
    assert house.line.by_adapter == {"a": 1, "b": 1, "high": 1}


def test_leaving_twice_is_leaving_once() -> None:
    house = House(busy("held"))
    waiter = house.enter("x")
    house.line.leave(waiter)
    house.line.leave(waiter)
    assert len(house.line) == 0


def test_who_waits_for_boxes_of_which_none_may_be_asked_any_more_is_sent_on_at_once() -> None:
    box, other = busy("held"), busy("held", name="b")
    house = House(box, other)
    for _ in range(2):
        house.enter("x")
    box.down = True
    house.line.serve(0.01)
    assert (house.pushed_out, len(house.line)) == ([], 2), "one is left to wait for"
    other.down = True
    house.line.serve(0.02)
    assert (house.pushed_out, len(house.line)) == (["x", "x"], 0)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from("abcde"), st.integers(0, 2)),
        st.tuples(st.just("end"), st.sampled_from("abcde"), st.integers(0, 1)),
        st.tuples(st.just("leave"), st.sampled_from("abcde"), st.integers(0, 10)),
        st.tuples(st.just("pass"), st.just("a"), st.integers(0, 20)),
    ),
    max_size=60,
)


@given(operations=OPERATIONS, slots=st.integers(1, 3))
def test_slots_are_never_overbooked_nobody_is_lost_and_no_room_is_left_empty(
    operations: list[tuple[str, str, int]], slots: int
) -> None:
    boxes = [Box(name, BoxLoad(slots)) for name in "xy"]
    house, now, entered, left = House(*boxes), 0.0, 0, 0
    waiters: list[Waiter[Box]] = []
    for what, adapter, number in operations:
        now += 0.01
        if what == "enter":
            waiters.append(house.enter(adapter, rank=number, now=now))
            entered += 1
        elif what == "end" and boxes[number].load.attempts.of(adapter):
            house.end(boxes[number], adapter, now)
        elif what == "leave" and number < len(waiters):
            before = len(house.line)
            house.line.leave(waiters[number])
            left += before - len(house.line)
        elif what == "pass":
            now += number / 10
            house.line.serve(now)
        assert all(box.load.attempts.distinct <= slots for box in boxes)
        assert entered == len(house.served) + len(house.line) + left
        assert sum(house.line.by_adapter.values()) == len(house.line)
        home = boxes[0].load
        assert not any(home.has_room(adapter) for adapter in house.line.by_adapter), "at home there is room"


class LooksAtAll(WaitingLine[Box]):
    """Takes all in their order, whether they can move or not."""

    def _serve_one(self, turned_away: set[tuple[int, str]], now: float) -> bool:
        for key in sorted(self._queues.keys() - turned_away, key=self._turn):
            waiter = self._queues[key][0]
            if all(box.condition(waiter.adapter, now) is not None for box in waiter.boxes):
                self.leave(waiter)
                self._push_out(waiter)
                return True
            box = self._room_for(waiter, now)
            if box is not None and self._take(waiter, box, now):
                self.leave(waiter)
                return True
            turned_away.add(key)
        return False


@given(operations=OPERATIONS, slots=st.integers(1, 2), down=st.sets(st.integers(0, 2)), slow=st.sets(st.integers(0, 2)))
def test_who_can_move_is_found_as_if_everybody_were_looked_at(
    operations: list[tuple[str, str, int]], slots: int, down: set[int], slow: set[int]
) -> None:
    houses = []
    for kind in (WaitingLine[Box], LooksAtAll):
        house = House(*(Box(name, BoxLoad(slots), slow=n in slow) for n, name in enumerate("xyz")))
        house.line = kind(house._take, lambda waiter, house=house: house.pushed_out.append(waiter.adapter))  # type: ignore[misc]
        now = 0.0
        for count, (what, adapter, number) in enumerate(operations):
            now += 0.01
            box = house.boxes[number % 3]
            if what == "enter":
                house.enter(adapter, rank=number, now=now)
            elif what == "end" and box.load.attempts.of(adapter):
                house.end(box, adapter, now)
            elif what == "pass":
                now += number / 10
                for n in down:
                    house.boxes[n].down = count % 2 == 0
                house.line.serve(now)
        houses.append(house)
    one, two = houses
    assert (one.served, one.pushed_out, one.line.by_adapter) == (two.served, two.pushed_out, two.line.by_adapter)


def test_who_got_room_elsewhere_is_owed_no_turn_at_home() -> None:
    home, other = busy("x"), busy(slots=2, name="b")
    house = House(home, other)
    home.load.denied("cold", 0.0)
    house.enter("cold")
    assert house.served == [("cold", "b")]
    assert home.load.turns.denied_since == {}
