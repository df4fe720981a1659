"""How far a version has come, from what gateways say of themselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.rollout import rollout
from gateway.policy.standing import Refusal, Replica, Standing, decode_standing, encode_standing
from gateway.policy.versions import Head

NEW = Head("s", 5, "d5")
HEADS = st.builds(lambda store, version: Head(store, version, f"d{version}"), st.sampled_from("st"), st.integers(1, 9))


def gateway(in_force: Head | None, refused: Head | None = None, *, silent_s: float = 0.0) -> Replica:
    refusal = None if refused is None else Refusal(refused, "format 9 is not known")
    return Replica("id", silent_s, Standing(name="gw:8080", pid=1, in_force=in_force, refused=refusal))


REPLICAS = st.builds(gateway, st.none() | HEADS, st.none() | HEADS, silent_s=st.sampled_from([0.0, 7.0]))


def why(replica: Replica, current: Head | None = NEW) -> str:
    ((_, said),) = rollout(NEW, current, [replica]).without()
    return said


def test_a_gateway_with_the_version_has_taken_it() -> None:
    found = rollout(NEW, NEW, [gateway(NEW)])
    assert (found.complete, found.alive) == (True, 1)


def test_where_nobody_lives_nobody_is_waited_for() -> None:
    assert rollout(NEW, NEW, []).complete


def test_one_that_refuses_says_why_and_is_not_waited_for() -> None:
    found = rollout(NEW, NEW, [gateway(Head("s", 4, "d4"), NEW)])
    assert not found.complete
    assert not found.waiting
    assert why(gateway(Head("s", 4, "d4"), NEW)) == "refuses it: format 9 is not known"


def test_one_that_refused_an_earlier_version_is_waited_for() -> None:
    assert rollout(NEW, NEW, [gateway(None, Head("s", 4, "d4"))]).waiting


def test_one_that_has_gone_on_to_what_others_applied_since_has_taken_it() -> None:
    later = Head("s", 6, "d6")
    assert rollout(NEW, later, [gateway(later)]).complete


def test_one_that_has_seen_the_store_further_than_it_is_never_goes_back() -> None:
    assert "never goes back" in why(gateway(Head("s", 9, "d9")))


def test_one_that_has_other_content_of_that_number_is_waited_for_and_named_with_it() -> None:
    other = gateway(Head("s", 5, "another"))
    assert rollout(NEW, NEW, [other]).waiting == (other,)
    assert why(other) == "has version 5 of store s in force, with other content"


def test_one_that_is_silent_is_not_waited_for_and_named_as_it_may_live() -> None:
    silent = gateway(Head("s", 4, "d4"), silent_s=7.0)
    found = rollout(NEW, NEW, [gateway(NEW), silent])
    assert (found.complete, found.alive, found.waiting, found.silent) == (False, 1, (), (silent,))
    assert why(silent) == "was last heard of 7 s ago, at version 4, and may still serve by it"
    nothing_known = gateway(None, silent_s=60.0)
    assert why(nothing_known) == "was last heard of 60 s ago"
    # It had it when it was last heard of.
    assert rollout(NEW, NEW, [gateway(NEW, silent_s=7.0)]).complete


def test_one_that_is_behind_is_named_with_what_it_has() -> None:
    assert why(gateway(Head("s", 4, "d4"))) == "has version 4 of store s in force"
    assert why(gateway(None)) == "has no version yet"
    assert why(Replica("0123456789", 0.0, None)) == "does not say which version it has"
    assert why(gateway(None, silent_s=4.2)) == "has no version yet, and was last heard of 4 s ago"


@given(HEADS, st.none() | HEADS, st.lists(REPLICAS, max_size=4))
def test_every_gateway_is_counted_once_and_only_one_with_the_version_or_a_later_one_has_taken_it(
    head: Head, current: Head | None, replicas: list[Replica]
) -> None:
    found = rollout(head, current, replicas)
    assert found.alive + len(found.silent) == len(replicas)
    assert len(list(found.without())) == len(replicas) - len(found.took)
    for replica in found.took:
        assert replica.standing is not None
        in_force = replica.standing.in_force
        assert in_force is not None
        assert in_force.store_id == head.store_id
        assert in_force.version >= head.version


@given(st.none() | HEADS, st.none() | HEADS)
def test_what_a_gateway_says_is_read_as_it_was_written(in_force: Head | None, refused: Head | None) -> None:
    standing = gateway(in_force, refused).standing
    assert standing is not None
    assert decode_standing(encode_standing(standing)) == standing
