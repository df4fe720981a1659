"""How an answer that broke off is asked for again, so that its client sees one answer: one pure decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.dataplane.said import Spoken
from gateway.dataplane.told_tokens import tokens_wanted
from gateway.policy.compiled import OnBrokenStream
from gateway.upstream.provider_request import COMPLETION_MAX_TOKENS, Endpoint

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
    echoed: str = ""
    """What was told first, and is of the request: no token of the answer."""


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
    tokens = spoken.tokens.texts or spoken.tokens.ids
    return not (spoken.odd or spoken.calls or tokens or any(text.strip() for text in spoken.texts.values()))


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
    | hidden reasoning (`include_reasoning: false`) | repeated: nobody knows what was said of it |
    | `logprobs` of completions, `return_token_ids` | repeated: they count from the beginning |
    | `logprobs` of chat | repeated, unless the tokens told are the text told, without a blank at its end: a token of
      which half was told cannot be told once more |
    | a stop string that is told (`include_stop_str_in_output`) and may have begun | repeated: who is asked behind its
      beginning does not see it |
    | a prompt of token ids, or cut (`truncate_prompt_tokens`) | repeated: text cannot be put behind it |
    | `add_generation_prompt: false` alone | repeated: a template would begin a message |
    | `echo` (chat) of a last message that is no one text, or of which half came | repeated |
    | `echo` (chat) of a last message of the assistant's | continued behind it, and the rest asked for without `echo` |
    | nothing but blanks was said | anew: it may begin with other blanks; repeated, where their tokens were told |
    | text, in chat | continued, by `continue_final_message` |
    | text, in completions | continued, by the longer prompt |

    What is told of each token (`logprobs`, token ids) is counted apart from the text, and left out where a repeated
    answer has it again (:mod:`.told_tokens`). Presence and frequency penalties count the answer only, of which a
    continued one forgets the beginning.
    """
    if choices != 1:
        return Refused(f"{choices} choices")
    if spoken.odd:
        return Refused("its content is not text")
    if endpoint == "completions" and (fields.get("echo") or fields.get("suffix")):
        return Refused("echo or suffix")
    if is_blank(spoken):
        return Resumption("anew", dict(fields))
    echoed = _echoed(endpoint, fields)
    if echoed is None or not _can_be_continued(endpoint, fields, spoken, echoed):
        return Resumption("repeated", dict(fields))
    text = spoken.texts["content"][len(echoed) :]
    prefix = text.rstrip()
    owed = text[len(prefix) :]
    if endpoint == "completions":
        # A prompt is taken as it is: nothing is cut off.
        longer: dict[str, Any] = {"prompt": _prompt(fields) + text}
        if fields.get("max_tokens") is None:
            # As vLLM takes it, of null too (``normalize_null_max_tokens``). A chat has all of the context.
            longer["max_tokens"] = COMPLETION_MAX_TOKENS
        return Resumption("continued", {**fields, **longer})
    messages = list(fields["messages"])
    if fields.get("continue_final_message"):
        last = messages.pop()
        messages.append({**last, "content": last["content"] + prefix})
    else:
        messages.append({"role": "assistant", "content": prefix})
    seam: dict[str, Any] = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    if fields.get("echo"):
        seam["echo"] = False
    return Resumption("continued", {**fields, **seam}, owed, echoed)


def limited(found: Resumption, said_tokens: int, *, ended: bool = False) -> tuple[dict[str, Any], bool]:
    """The body with the limits that are left after ``said_tokens``, and whether none is: what comes then is only there
    to say how the answer ends, and what it took. ``ended``: it has, and only the latter is missing."""
    if found.way != "continued":
        return found.fields, False
    fields = dict(found.fields)
    if ended:
        fields = {name: value for name, value in fields.items() if name not in {*_LIMITS, "min_tokens"}}
        return fields | {"max_tokens": 1}, True
    spent = False
    for name in _LIMITS:
        limit = _number(fields.get(name))
        if limit is not None:
            spent = spent or limit <= said_tokens
            fields[name] = max(1, limit - said_tokens)
    least = _number(fields.get("min_tokens"))
    if least is not None:
        fields["min_tokens"] = max(0, least - said_tokens)
    return fields, spent


def _number(limit: Any) -> int | None:
    """Engines take `"8"` and `8.0` for 8."""
    try:
        return None if limit is None else int(limit)
    except (TypeError, ValueError):
        return None


def _can_be_continued(endpoint: Endpoint, fields: Mapping[str, Any], spoken: Spoken, echoed: str) -> bool:
    others = any(text for name, text in spoken.texts.items() if name != "content")
    if others or spoken.calls or not spoken.texts["content"].startswith(echoed):
        return False
    text = spoken.texts["content"][len(echoed) :]
    if not text.strip() or fields.get("truncate_prompt_tokens") is not None or _may_have_begun_to_stop(fields, text):
        return False
    wanted = fields.get("response_format")
    if any(fields.get(name) for name in _STRUCTURE) or (wanted and wanted != {"type": "text"}):
        return False
    if tokens_wanted(fields.get("logprobs"), fields.get("return_token_ids")):
        whole = "".join(spoken.tokens.texts) == text == text.rstrip()
        if endpoint == "completions" or fields.get("return_token_ids") or not whole:
            return False
    if endpoint == "completions":
        prompt = fields.get("prompt")
        return isinstance(prompt, str) or (isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str))
    if (fields.get("tools") and fields.get("tool_choice") != "none") or fields.get("functions"):
        return False
    messages = fields.get("messages")
    if not isinstance(messages, list) or fields.get("include_reasoning") is False:
        return False
    if fields.get("continue_final_message"):
        return bool(messages) and isinstance(messages[-1], dict) and isinstance(messages[-1].get("content"), str)
    return fields.get("add_generation_prompt") is not False


def _echoed(endpoint: Endpoint, fields: Mapping[str, Any]) -> str | None:
    """What is told of the conversation before the answer begins, as vLLM does it (``chat_completion/serving.py``): the
    last message, where it is of the role that answers. None where that cannot be known."""
    messages = fields.get("messages")
    if endpoint != "chat" or not fields.get("echo") or not messages:
        return ""
    last = messages[-1] if isinstance(messages, list) else None
    if not isinstance(last, dict):
        return None
    answers = "assistant" if fields.get("add_generation_prompt") is not False else last.get("role")
    content = last.get("content") or ""
    if last.get("role") != answers:
        return ""
    return content if isinstance(content, str) else None


def _may_have_begun_to_stop(fields: Mapping[str, Any], text: str) -> bool:
    stop = fields.get("stop")
    if not stop or not fields.get("include_stop_str_in_output"):
        return False
    stops = [stop] if isinstance(stop, str) else stop
    return any(text.endswith(one[:size]) for one in stops if isinstance(one, str) for size in range(1, len(one)))


def _prompt(fields: Mapping[str, Any]) -> str:
    prompt = fields["prompt"]
    return prompt if isinstance(prompt, str) else prompt[0]
