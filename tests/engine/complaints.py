"""What an agent was not to see, found in its history."""

from __future__ import annotations

import openai

from tests.engine.crowd import Story
from tests.engine.fleet import GENERIC_MODEL, EngineFleet


def all_complaints(stories: list[Story], engine: EngineFleet) -> list[str]:
    """Everything about these requests that their agents were not to see; empty when all is well."""
    return [complaint for story in stories for complaint in complaints(story, engine)]


def complaints(story: Story, engine: EngineFleet) -> list[str]:
    """Everything about one request that its agent was not to see."""
    who = f"{story.customer.name}, {story.kind}, by {story.served_by or 'nobody'}"
    if story.recording is not None:
        seen = engine.judge(story.recording, story.customer)
        return [f"{who}: {violation}" for violation in seen.violations]
    found = []
    if story.error is not None and not story.committed:
        found.append(f"an exception before any content: {story.error!r}")
    if story.error is not None and type(story.error) is not openai.APIError:
        found.append(f"a stream ended with {story.error!r} and not with an error frame")
    if story.error is None and story.finish != ("length" if story.own else "stop"):
        found.append(f"a silent end: finish_reason is {story.finish}")
    if story.own:
        found += _own_words(story, engine.own_answers[story.customer.adapter])
    else:
        found += _generic_words(story)
    return [f"{who}: {complaint}" for complaint in found]


def _own_words(story: Story, answer: str) -> list[str]:
    if story.degraded is not None or "x-failsoft-degraded" in story.headers:
        return ["marked as degraded, although a box answered with the adapter"]
    if story.kind == "long stream":
        is_right = answer.startswith(story.text) or story.text.startswith(answer)
    else:
        is_right = answer.startswith(story.text) if story.error is not None else story.text == answer
    return [] if is_right else [f"not the adapter's words: {story.text!r}"]


def _generic_words(story: Story) -> list[str]:
    if story.degraded is None or "x-failsoft-degraded" not in story.headers:
        return ["degraded, and not marked"]
    expected = {
        "reason": story.headers["x-failsoft-degraded"],
        "requested_model": story.customer.adapter,
        "served_model": GENERIC_MODEL,
        "served_by": "provider:hosted",
    }
    found = []
    if story.degraded != expected or story.headers["x-failsoft-model"] != GENERIC_MODEL:
        found.append(f"marked with {story.degraded}, not {expected}")
    if story.degraded["reason"] not in {"backend_down", "circuit_open"}:
        found.append(f"degraded for {story.degraded['reason']}")
    if story.model != GENERIC_MODEL:
        found.append(f"the body's model is {story.model}")
    if not story.text.startswith("generic:"):
        found.append(f"not the provider's words: {story.text!r}")
    return found
