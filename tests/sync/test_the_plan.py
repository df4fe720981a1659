"""What is to be done on a box: the plan, walked over a model of vLLM, holds its promises whatever comes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.failures import FIRST_S, LONGEST_S, Failures
from gateway.adapters.plan import Held, Kind, Load, Plan, Seen, Terms, Unload, Verify, plan
from gateway.adapters.wanted import Former, Wanted, dropped

NOW_S = 1_000_000.0
LONG_AGO = NOW_S - 3600
V3 = Wanted("acme_v3", "/adapters/acme_v3", "acme")
V4 = Wanted("acme_v4", "/adapters/acme_v4", "acme")
FORMER_V3 = {"acme_v3": Former("acme", LONG_AGO)}


def wanted(*adapters: Wanted) -> dict[str, Wanted]:
    return {one.name: one for one in adapters}


def seen(*names: str, **more: object) -> Seen:
    return replace(Seen({name: f"/adapters/{name}" for name in names}, 64), **more)  # type: ignore[arg-type]


def found(
    named: dict[str, Wanted],
    box: Seen,
    former: dict[str, Former] | None = None,
    failed: dict[str, Held] | None = None,
    terms: Terms | None = None,
) -> Plan:
    return plan(named, box, former or {}, failed or {}, terms or Terms(), NOW_S)


def kinds(plan: Plan) -> dict[str, Kind]:
    return {held.adapter: held.kind for held in plan.held}


def test_the_old_version_stays_until_the_new_one_answers() -> None:
    first = found(wanted(V4), seen("acme_v3"), FORMER_V3)
    assert first.actions == (Load("acme_v4", "/adapters/acme_v4"), Verify("acme_v4"))
    assert kinds(first) == {"acme_v3": Kind.SUCCESSOR}
    second = found(wanted(V4), seen("acme_v3", "acme_v4", unproven={"acme_v4"}), FORMER_V3)
    assert second.actions == (Verify("acme_v4"),)
    assert kinds(second) == {"acme_v3": Kind.SUCCESSOR}
    third = found(wanted(V4), seen("acme_v3", "acme_v4"), FORMER_V3)
    assert [type(action) for action in third.actions] == [Unload]
    assert third.actions[0].adapter == "acme_v3"


def test_a_successor_that_failed_keeps_the_old_version_and_is_not_tried_again() -> None:
    failed = {"acme_v4": Held("acme_v4", Kind.FAILED, "does not answer")}
    plan = found(wanted(V4), seen("acme_v3"), FORMER_V3, failed)
    assert plan.actions == ()
    assert kinds(plan) == {"acme_v3": Kind.SUCCESSOR, "acme_v4": Kind.FAILED}


def test_another_customers_failure_keeps_nobody_elses_old_version() -> None:
    globex = Wanted("globex_v1", "/adapters/globex_v1", "globex")
    failed = {"globex_v1": Held("globex_v1", Kind.FAILED, "does not answer")}
    plan = found(wanted(V4, globex), seen("acme_v3", "acme_v4"), FORMER_V3, failed)
    assert [action.adapter for action in plan.actions] == ["acme_v3"]


def test_a_customer_that_left_leaves_room_for_others_first() -> None:
    plan = found(wanted(V4), seen("globex_v1", capacity=1), {"globex_v1": Former("globex", LONG_AGO)})
    assert plan.actions == (Unload("globex_v1", "no policy names it any more"),)
    assert kinds(plan) == {"acme_v4": Kind.FULL}


def test_what_is_asked_or_in_its_grace_stays() -> None:
    box = seen("acme_v3", "acme_v4")
    assert kinds(found(wanted(V4), replace(box, in_flight={"acme_v3"}), FORMER_V3)) == {"acme_v3": Kind.IN_FLIGHT}
    recent = {"acme_v3": Former("acme", NOW_S - 59.9)}
    plan = found(wanted(V4), box, recent)
    assert kinds(plan) == {"acme_v3": Kind.GRACE}
    assert plan.held[0].until_s == NOW_S + 60 - 59.9
    assert plan.waiting == plan.held


def test_nothing_is_unloaded_by_one_who_may_not_be_alone() -> None:
    terms = Terms(unload=False, replace=True, prune=True)
    moved = wanted(replace(V4, path="/elsewhere"))
    for one in (
        found(wanted(V4), seen("acme_v3", "acme_v4"), FORMER_V3, terms=terms),
        found(moved, seen("acme_v4"), terms=terms),
        found({}, seen("somebody"), terms=terms),
    ):
        assert one.actions == ()


def test_somebody_elses_adapter_is_unloaded_by_wish_only_and_last() -> None:
    assert kinds(found(wanted(V3), seen("acme_v3", "theirs"))) == {"theirs": Kind.NOT_OURS}
    prune = Terms(prune=True)
    assert kinds(found(wanted(V3, V4), seen("acme_v3", "theirs"), terms=prune)) == {"theirs": Kind.SUCCESSOR}
    assert found(wanted(V3), seen("acme_v3", "theirs"), terms=prune).actions == (
        Unload("theirs", "no policy names it"),
    )


def test_a_trailing_slash_is_no_other_path_and_a_box_that_does_not_say_has_the_right_one() -> None:
    for root in ("/adapters/acme_v3/", None):
        assert found(wanted(V3), Seen({"acme_v3": root}, 64)).kept == ("acme_v3",)


def test_a_name_from_another_path_is_left_unless_it_may_be_replaced() -> None:
    moved = wanted(replace(V3, path="/new"))
    plan = found(moved, seen("acme_v3"))
    assert plan.actions == ()
    assert [held.kind for held in plan.wrong] == [Kind.CONFLICT]
    may = Terms(replace=True)
    assert [type(one) for one in found(moved, seen("acme_v3"), terms=may).actions] == [Unload, Load, Verify]
    assert found(moved, seen("acme_v3", in_flight={"acme_v3"}), terms=may).actions == ()


def test_without_a_path_nothing_is_loaded() -> None:
    plan = found(wanted(replace(V4, path=None)), seen())
    assert [held.kind for held in plan.wrong] == [Kind.NO_PATH]


def test_failures_are_spaced_out_and_end_with_another_path() -> None:
    failures, named = Failures(), wanted(V4)
    now, waits = 0.0, []
    for _ in range(12):
        retry_at = failures.failed("a", "acme_v4", V4.path, "bad", now).retry_at
        assert "acme_v4" in failures.held("a", named, retry_at - 0.001)
        assert failures.held("a", named, retry_at) == {}
        assert failures.held("b", named, now) == {}
        waits.append(retry_at - now)
        now = retry_at
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (FIRST_S, LONGEST_S)
    failures.keep(wanted(replace(V4, path="/mended")))
    assert failures.known("a") == {}


def test_an_adapter_that_a_box_died_of_is_kept_from_all_others() -> None:
    failures, named = Failures(), wanted(V4)
    failures.failed("a", "acme_v4", V4.path, "connection lost", 0.0, lost=True)
    assert "box a was gone" in failures.held("b", named, 1.0)["acme_v4"].text
    failures.worked("b", "acme_v4")
    assert failures.held("a", named, 1.0) == {}


NAMES = ["a1", "a2", "b1", "b2", "c1"]


@dataclass
class Box:
    """As vLLM has it. ``bad``: those that load and do not answer; ``refuses``: those that do not load."""

    listed: dict[str, str | None]
    capacity: int
    bad: frozenset[str]
    refuses: frozenset[str]
    unproven: set[str] = field(default_factory=set)
    failed: dict[str, Held] = field(default_factory=dict)
    rolled_back: set[str] = field(default_factory=set)

    def do(self, action: Load | Verify | Unload) -> None:
        name = action.adapter
        match action:
            case Load(_, path):
                assert name not in self.listed, "a name is never loaded over itself"
                if name in self.refuses:
                    self.failed[name] = Held(name, Kind.FAILED, "refused")
                else:
                    self.listed[name] = path
                    self.unproven.add(name)
            case Verify():
                self.unproven.discard(name)
                if name in self.bad:
                    self.failed[name] = Held(name, Kind.FAILED, "does not answer")
                    del self.listed[name]
                    self.rolled_back.add(name)
            case Unload():
                del self.listed[name]


@given(
    before=st.sets(st.sampled_from(NAMES)),
    after=st.sets(st.sampled_from(NAMES)),
    theirs=st.sets(st.sampled_from(["x", "y"])),
    already=st.sets(st.sampled_from(NAMES)),
    bad=st.sets(st.sampled_from(NAMES)),
    refuses=st.sets(st.sampled_from(NAMES)),
    in_flight=st.sets(st.sampled_from(NAMES)),
    capacity=st.integers(1, 9),
    prune=st.booleans(),
)
def test_whatever_happens_a_box_ends_with_what_policies_name_and_never_without_the_old_for_the_new(
    before: set[str],
    after: set[str],
    theirs: set[str],
    already: set[str],
    bad: set[str],
    refuses: set[str],
    in_flight: set[str],
    capacity: int,
    prune: bool,
) -> None:
    def named(names: set[str]) -> dict[str, Wanted]:
        return {name: Wanted(name, f"/adapters/{name}", name[0]) for name in sorted(names)}

    former = dropped(named(before), named(after), LONG_AGO)
    there = before | already | theirs
    box = Box({name: f"/adapters/{name}" for name in there}, capacity, frozenset(bad), frozenset(refuses))
    terms = Terms(prune=prune)
    for _ in range(40):
        view = Seen(dict(box.listed), capacity, in_flight=in_flight, unproven=box.unproven)
        step = plan(named(after), view, former, box.failed, terms, NOW_S)
        assert {held.adapter for held in step.held}.isdisjoint(step.kept)
        if not step.actions:
            break
        action = step.actions[0]
        if isinstance(action, Unload):
            assert action.adapter not in after, "nothing that policies name is unloaded"
            assert action.adapter not in in_flight
            assert action.adapter in former or prune, "nothing of somebody else's"
            if action.adapter in former:
                mine = {name for name in after if name[0] == action.adapter[0]}
                assert mine <= box.listed.keys() - box.unproven, "its successors are there and answer"
        box.do(action)
        assert len(box.listed) <= max(capacity, len(there)), "the pool is never overfilled"
    else:
        raise AssertionError("it does not end")
    for name in after - box.listed.keys():
        assert name in {held.adapter for held in step.wrong}, "what is missing is told"
    for name in after & box.listed.keys():
        assert name in step.kept
    if not (bad | refuses | in_flight) and len(there | after) <= capacity:
        left = box.listed.keys() - after
        assert left == set() if prune else left == {name for name in there - after if name not in former}
