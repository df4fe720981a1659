"""Each of several gateways counts on a share of a box's LoRA slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.fleet import Fleets
from gateway.fleet.slot_share import Replicas
from gateway.policy.compiled import BoxSpec
from tests.fleet.policies import compiled
from tests.fleet.token_box import Watchers


@given(st.integers(1, 64), st.integers(1, 20))
def test_shares_differ_by_one_at_most_and_together_are_all_slots(max_loras: int, alive: int) -> None:
    shares = [Replicas(alive, rank).slots(max_loras) for rank in range(alive)]
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= 1
    assert shares == sorted(shares, reverse=True)
    # Of fewer slots than gateways each still counts on one: an adapter that has no slot is answered by nobody.
    assert sum(shares) == max(max_loras, alive)


def test_a_gateway_alone_counts_on_all() -> None:
    assert Replicas().slots(8) == 8


async def test_boxes_and_those_of_later_policies_have_the_share(watchers: Watchers) -> None:
    fleets = Fleets(metrics=watchers.metrics, alarms=watchers.alarms, events=watchers.events, probing=False)

    def spec(name: str, max_loras: int) -> BoxSpec:
        return BoxSpec(name=name, fleet="main", url=f"http://{name}:1", max_loras=max_loras, max_cpu_loras=64)

    fleets.follow(compiled(spec("a", 8)))
    fleets.share_with(Replicas(alive=2, rank=1))
    assert [box.load.slots.slots for box in fleets.all()] == [4]
    fleets.follow(compiled(spec("a", 9), spec("b", 3)))
    assert [box.load.slots.slots for box in fleets.all()] == [4, 1]
    a, b = fleets.all()
    assert b.load.has_room("acme_v3")
    assert b.admit("acme_v3", 1.0) is not None
    assert not b.load.has_room("acme_v4")
    fleets.share_with(Replicas())
    assert [box.load.slots.slots for box in (a, b)] == [9, 3]
    assert b.load.has_room("acme_v4")
    await fleets.close()
