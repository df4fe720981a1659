"""The bytes of one request.

Prompts are made of short, frequent English words, each one token of Llama's, Qwen's and GPT's tokenizers with the blank
before it; how many tokens a prompt really had is in the answer's usage. Words are drawn anew for each request, so that
no prefix cache makes one prompt cheaper than another.
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

from backend.traffic.arrival import Arrival

_WORDS: Final = """
time way year work day man world life part house course case point water room car area money story fact month lot
right study book eye job word business side kind head service friend father power hour game line end member law city
name team minute idea body back parent face level office door health person art war party result change morning
reason research girl guy moment air teacher force order food land paper music field map plan tree
"""
WORDS: Final = tuple(_WORDS.split())


def words(seed: int) -> random.Random:
    """Where a run's prompts come from: the same seed, the same prompts in the order in which requests are due."""
    return random.Random(f"{seed} words")  # noqa: S311 - prompts are no secret


def prompt_of(tokens: int, chance: random.Random) -> str:
    """About ``tokens`` tokens of text."""
    return " ".join(chance.choices(WORDS, k=tokens))


def body_of(arrival: Arrival, chance: random.Random, *, exact_output: bool = True) -> dict[str, object]:
    """The JSON of a chat completion's request.

    ``exact_output`` asks for exactly ``arrival.output_tokens`` with ``ignore_eos``, which is vLLM's own field: the
    gateway takes it out for providers.
    """
    body: dict[str, object] = {
        "model": arrival.model,
        "messages": [{"role": "user", "content": prompt_of(arrival.prompt_tokens, chance)}],
        "max_tokens": arrival.output_tokens,
    }
    if arrival.streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if exact_output:
        body["ignore_eos"] = True
    return body


def question(body: dict[str, object], *, key: str, host: str, path: str) -> bytes:
    """One HTTP/1.1 request."""
    content = msgspec.json.encode(body)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\naccept: */*\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode("latin-1") + content
