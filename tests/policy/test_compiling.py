"""What the request path gets from policies."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from gateway.errors import PolicyError
from gateway.policy.compile import compile_policy
from gateway.policy.compiled import BaseStep, CompiledPolicy, CustomerPolicy, ProviderStep, StaticStep
from gateway.policy.policy_set import PolicySet
from gateway.policy.prices import price_of
from gateway.policy.validate import read_folder
from tests.policy.scenery import FLEET, Folder, customer

ENV = {"BOX_KEY": "box-secret", "OPENAI_API_KEY": "provider-secret"}


def compiled(folder: Folder, env: dict[str, str] | None = ENV) -> CompiledPolicy:
    return compile_policy(read_folder(folder.path), version=7, store_id="s", created_s=9, env=env)


def acme(folder: Folder) -> CustomerPolicy:
    return compiled(folder).customers["acme"]


def test_built_in_defaults_hold_where_nothing_is_written(folder: Folder) -> None:
    found = acme(folder)
    assert (found.ttft_budget_s, found.plain_budget_s, found.deadline_s, found.stall_timeout_s) == (2, 30, 60, 10)
    assert (found.on_broken_stream, found.priority, found.hosted_allowed) == ("resume", "standard", True)
    price = price_of("openai/gpt-4o-mini")
    assert found.steps == (ProviderStep(compiled(folder).providers["hosted"], "openai/gpt-4o-mini", price=price),)


def test_the_plain_budget_is_half_the_deadline_unless_written(folder: Folder) -> None:
    folder.customer("acme", "deadline: 20s\n")
    assert acme(folder).plain_budget_s == 10
    folder.customer("acme", "deadline: 20s\nplain_budget: 4s\n")
    assert acme(folder).plain_budget_s == 4


def test_a_customers_key_replaces_the_defaults_whole(folder: Folder) -> None:
    folder.write("defaults.yaml", "defaults:\n  ttft_budget: 3s\n  fallback: [{base: {}}, {static: default}]\n")
    assert acme(folder).steps == (BaseStep(), StaticStep("default"))
    folder.customer("acme", "fallback: [{static: own, even_for_tools: true}]\n")
    assert acme(folder).steps == (StaticStep("own", even_for_tools=True),)
    assert acme(folder).ttft_budget_s == 3
    folder.customer("acme", "fallback: []\n")
    assert acme(folder).steps == ()


def test_a_provider_step_carries_what_the_customer_wants_of_it(folder: Folder) -> None:
    folder.customer(
        "acme",
        "fallback: [{provider: hosted, system_prompt: Be nice., drop: [logprobs, seed], model: anthropic/claude-x}]\n",
    )
    (step,) = acme(folder).steps
    assert isinstance(step, ProviderStep)
    assert (step.model, step.direct, step.system_prompt) == ("anthropic/claude-x", False, "Be nice.")
    assert step.drop == {"logprobs", "seed"}


def test_a_customer_that_forbids_hosted_keeps_every_other_step(folder: Folder) -> None:
    folder.customer(
        "acme",
        "hosted: {allowed: false}\nfallback: [{provider: hosted}, {base: {}}, {provider: hosted}, {static: x}]\n",
    )
    found = compiled(folder)
    assert found.customers["acme"].steps == (BaseStep(), StaticStep("x"))
    assert not found.customers["acme"].hosted_allowed
    assert found.warnings == ("hosted.allowed: false: the provider steps of acme are not used",)


def test_references_are_resolved_from_the_environment_only(folder: Folder) -> None:
    found = compiled(folder)
    assert found.providers["hosted"].api_key == "provider-secret"
    assert [box.api_key for box in found.fleets["main"].boxes] == [None, "box-secret"]
    assert "secret" not in repr(found)


@pytest.mark.parametrize("value", [None, "", "  ", "ä", "a\nb"])
def test_an_unset_reference_makes_its_box_or_provider_unavailable_and_nothing_else(
    folder: Folder, value: str | None
) -> None:
    env = {} if value is None else {"BOX_KEY": value, "OPENAI_API_KEY": value}
    found = compiled(folder, env)
    first, second = found.fleets["main"].boxes
    assert first.unavailable is None
    assert "${BOX_KEY}" in (second.unavailable or "")
    assert "${OPENAI_API_KEY}" in (found.providers["hosted"].unavailable or "")
    assert len(found.customers["acme"].steps) == 1


def test_the_command_line_needs_no_reference(folder: Folder) -> None:
    found = compiled(folder, None)
    assert found.providers["hosted"].unavailable is None
    assert found.providers["hosted"].api_key is None


def test_boxes_keep_their_order_and_get_their_pool(folder: Folder) -> None:
    folder.write("fleet.yaml", FLEET.replace(':8000"}', ':8000", max_loras: 100}'))
    boxes = compiled(folder).fleets["main"].boxes
    assert [(box.name, box.max_loras, box.max_cpu_loras) for box in boxes] == [("box-a", 100, 100), ("box-b", 8, 64)]


def test_a_key_is_known_by_its_digest_until_it_expires(folder: Folder) -> None:
    text = customer("acme").replace("api_keys: [", "api_keys: [{sha256: " + "ab" * 32 + ", expires: 2026-12-31}, ")
    folder.write("customers/acme.yaml", text)
    found = compiled(folder)
    assert found.authenticate(b"key-acme", dt.date(2030, 1, 1)) is found.customers["acme"]
    assert found.authenticate(b"key-other", dt.date(2026, 1, 1)) is None
    assert found.keys[bytes.fromhex("ab" * 32)].expires == dt.date(2026, 12, 31)


def test_a_set_that_does_not_hold_together_is_refused_wherever_it_came_from(folder: Folder) -> None:
    good = read_folder(folder.path)
    bad: PolicySet = dataclasses.replace(good, customers=(good.customers[0], good.customers[0]))
    with pytest.raises(PolicyError, match="acme is there twice"):
        compile_policy(bad, version=1, store_id="s", created_s=0, env={})
