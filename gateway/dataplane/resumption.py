"""How an answer that broke off is asked for again, so that its client sees one answer: one pure decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.dataplane.said import Spoken
from gateway.policy.compiled import OnBrokenStream
from gateway.upstream.provider_request import Endpoint

Way = Literal["continued", "repeated", "anew"]

_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_STRUCTURE: Final = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")


@dataclass(frozen=True, slots=True)
class Resumption:
    """``fields``: the body to ask with, but for the model and what tokens are left (:func:`limited`).

    ``continued``: the box goes on behind what was said; ``owed`` is the blank at its end that could not be handed over,
    since templates cut it off, and that the box is to say again. ``repeated``: it says all once more, and what was told
    already is held back, as long as it is the same. ``anew``: nothing but blanks was told, so that what is said now may
    be anything, of anybody.
    """

    way: Way
    fields: dict[str, Any]
    owed: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be gone on with. ``why``: for operators."""

    why: str


def way_on(
    wish: OnBrokenStream, endpoint: Endpoint, fields: Mapping[str, Any], choices: int, spoken: Spoken
) -> Resumption | Refused:
    """What a customer's `on_broken_stream`, ``wish``, makes of a stream that broke after ``spoken``.

    | `on_broken_stream` | what its client has | |
    | --- | --- | --- |
    | `resume` | anything | as :func:`resumption` says, at boxes with the same adapter alone: no prefix can be continued
      at a provider |
    | `restart` | its role, and blanks at most | anew, at what comes next in the policy, providers among it |
    | `restart` | any text, reasoning, refusal or tool call | refused: another answer would be glued to it |
    | `restart` | parts of several choices | refused: as of `resume` |
    | `error` | anything | refused |
    """
    if wish == "resume":
        return resumption(endpoint, fields, choices, spoken)
    if wish == "error":
        return Refused("its policy says error")
    if choices != 1:
        return Refused(f"{choices} choices")
    return Resumption("anew", dict(fields)) if is_blank(spoken) else Refused("more than blanks had gone out")


def is_blank(spoken: Spoken) -> bool:
    """Whether nothing was told that anybody could miss."""
    return not (spoken.odd or spoken.calls or any(text.strip() for text in spoken.texts.values()))


def resumption(endpoint: Endpoint, fields: Mapping[str, Any], choices: int, spoken: Spoken) -> Resumption | Refused:
    """What to ask another box, after ``spoken``.

    | the request, or what was said | |
    | --- | --- |
    | several choices (`n`, several prompts) | refused: no box can be told how far each has come |
    | audio, a `function_call`, content that is no text | refused: of no known shape |
    | `echo`, `suffix` (completions) | refused: what was said begins with the prompt, or is put into it |
    | a tool call has begun, or the box may yet take prose for the beginning of one (`tools`, not `tool_choice: none`) |
      repeated: half a call is no message that a template knows, and a parser that sees the second half only would tell
      prose and call apart in another place |
    | reasoning or a refusal was said | repeated: templates write no open reasoning |
    | structured output (`response_format`, `structured_outputs`, …) | repeated: its grammar would begin anew |
    | `logprobs` of completions | repeated: they count characters from the beginning |
    | a prompt of token ids | repeated: text cannot be put behind them |
    | nothing but blanks was said | anew: it may begin with other blanks |
    | text, in chat | continued, by `continue_final_message` |
    | text, in completions | continued, by the longer prompt |

    `logprobs` of chat are of each token, and so right behind the seam too. Presence and frequency penalties count the
    answer only, of which a continued one forgets the beginning.
    """
    if choices != 1:
        return Refused(f"{choices} choices")
    if spoken.odd:
        return Refused("its content is not text")
    if endpoint == "completions" and (fields.get("echo") or fields.get("suffix")):
        return Refused("echo or suffix")
    if is_blank(spoken):
        return Resumption("anew", dict(fields))
    if not _can_be_continued(endpoint, fields, spoken):
        return Resumption("repeated", dict(fields))
    text = spoken.texts["content"]
    prefix = text.rstrip()
    owed = text[len(prefix) :]
    if endpoint == "completions":
        # A prompt is taken as it is: nothing is cut off.
        return Resumption("continued", {**fields, "prompt": _prompt(fields) + text})
    messages = list(fields["messages"])
    if fields.get("continue_final_message"):
        last = messages.pop()
        messages.append({**last, "content": last["content"] + prefix})
    else:
        messages.append({"role": "assistant", "content": prefix})
    seam = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    return Resumption("continued", {**fields, **seam}, owed)


def limited(found: Resumption, said_tokens: int) -> tuple[dict[str, Any], bool]:
    """The body with the limits that are left after ``said_tokens``, and whether none is: what comes then is only there
    to say how the answer ends."""
    if found.way != "continued":
        return found.fields, False
    fields = dict(found.fields)
    spent = False
    for name in _LIMITS:
        limit = fields.get(name)
        if isinstance(limit, int):
            spent = spent or limit <= said_tokens
            fields[name] = max(1, limit - said_tokens)
    if isinstance(least := fields.get("min_tokens"), int):
        fields["min_tokens"] = max(0, least - said_tokens)
    return fields, spent


def _can_be_continued(endpoint: Endpoint, fields: Mapping[str, Any], spoken: Spoken) -> bool:
    others = any(text for name, text in spoken.texts.items() if name != "content")
    if others or spoken.calls:
        return False
    wanted = fields.get("response_format")
    if any(fields.get(name) for name in _STRUCTURE) or (wanted and wanted != {"type": "text"}):
        return False
    if endpoint == "completions":
        prompt = fields.get("prompt")
        single = isinstance(prompt, str) or (
            isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str)
        )
        return single and fields.get("logprobs") is None
    if (fields.get("tools") and fields.get("tool_choice") != "none") or fields.get("functions"):
        return False
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return False
    if fields.get("continue_final_message"):
        return bool(messages) and isinstance(messages[-1], dict) and isinstance(messages[-1].get("content"), str)
    return True


def _prompt(fields: Mapping[str, Any]) -> str:
    prompt = fields["prompt"]
    return prompt if isinstance(prompt, str) else prompt[0]
