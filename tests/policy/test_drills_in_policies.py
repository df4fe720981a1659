"""How policies say that their fallback is to be proven."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import PolicyError
from gateway.policy.compile import compile_policy
from gateway.policy.compiled import BaseStep, CustomerPolicy
from gateway.policy.durations import format_every, parse_every
from gateway.policy.policy_set import PolicySet, policy_set_from_document
from gateway.policy.shares import format_share, parse_share
from gateway.policy.validate import read_folder
from tests.policy.scenery import Folder


def acme(policy_set: PolicySet) -> CustomerPolicy:
    return compile_policy(policy_set, version=1, store_id="s", created_s=0, env={}).customers["acme"]


def compiled(folder: Folder) -> CustomerPolicy:
    return acme(read_folder(folder.path))


def test_by_default_each_step_is_asked_once_a_day_and_no_traffic_takes_part(folder: Folder) -> None:
    found = compiled(folder)
    assert (found.drill_every_s, found.drill_share) == (86_400, 0)


@pytest.mark.parametrize(
    ("written", "every_s", "share"),
    [
        ("{every: 30m}", 1800, 0),
        ("{every: 7d}", 604_800, 0),
        ("{every: never}", None, 0),
        ("{share: 0.5%}", 86_400, 0.005),
        ("{every: never, share: 100%}", None, 1),
    ],
)
def test_a_customers_drills_replace_the_defaults_whole_and_survive_the_store(
    folder: Folder, written: str, every_s: float | None, share: float
) -> None:
    folder.write("defaults.yaml", "defaults:\n  drills: {every: 3h, share: 3%}\n")
    assert (compiled(folder).drill_every_s, compiled(folder).drill_share) == (10_800, 0.03)
    folder.customer("acme", f"drills: {written}\n")
    policy_set = read_folder(folder.path)
    for one in (policy_set, policy_set_from_document(policy_set.document)):
        assert (acme(one).drill_every_s, acme(one).drill_share) == (every_s, share)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("{every: off}", "or never"),
        ("{every: 24}", "30m, 24h or 7d, or never"),
        ("{every: 31d}", "at most 720h"),
        ("{share: 0.005}", "such as 0.5%"),
        ("{share: 0%}", "over 0% and at most 100%"),
        ("{share: 101%}", "over 0% and at most 100%"),
        ("{evry: 24h}", "did you mean every?"),
        ("24h", "drills"),
    ],
)
def test_a_slip_is_refused_with_the_forms_that_are_known(folder: Folder, written: str, hint: str) -> None:
    folder.customer("acme", f"drills: {written}\n")
    with pytest.raises(PolicyError) as raised:
        read_folder(folder.path)
    assert hint in str(raised.value)


def test_of_who_keeps_every_token_at_home_only_the_base_can_be_tried(folder: Folder) -> None:
    fallback = "fallback: [{provider: hosted}, {base: {}}, {static: later}]\n"
    folder.customer("acme", f"hosted: {{allowed: false}}\ndrills: {{share: 1%}}\n{fallback}")
    assert compiled(folder).drillable == (BaseStep(),)


@given(st.integers(1, 30 * 86_400_000))
@example(161_999_999)
def test_an_interval_survives_being_written_and_read(milliseconds: int) -> None:
    assert parse_every(format_every(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-9)


@given(st.integers(1, 100_000_000))
def test_a_share_survives_being_written_and_read(millionths: int) -> None:
    share = millionths / 1e8
    assert parse_share(format_share(share)) == pytest.approx(share, abs=1e-9)
