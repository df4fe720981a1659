"""A new customer's file, with an example of every key, and fresh API keys. Pure, but for the keys' randomness."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Sequence

from gateway.policy.models import CustomerFile
from gateway.policy.source import resolve_scalar

KEY_BYTES = 32
COMMENT_AT = 37
"""The column of comments, as in the files that are there."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")
_REQUIRED = ("customer", "fleet", "api_keys", "adapters")


def fresh_key() -> tuple[str, str]:
    """A key, and its digest as policies write it. The prefix is for those who look for keys that have leaked."""
    key = f"fs-{secrets.token_urlsafe(KEY_BYTES)}"
    return key, f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def key_entry(digest: str, name: str | None, expires: dt.date | None) -> str:
    """One entry of ``api_keys``, in the short form where there is nothing but the digest."""
    if name is None and expires is None:
        return f'"{digest}"'
    named = [] if name is None else [f"name: {_scalar(name)}"]
    until = [] if expires is None else [f"expires: {expires}"]
    return "{" + ", ".join([f'sha256: "{digest}"', *named, *until]) + "}"


def _scalar(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and text == text.strip() and resolve_scalar(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)


def customer_text(
    customer: str, digest: str, *, adapters: Sequence[str], fleet: str | None, provider: str | None
) -> str:
    """The file. ``fleet`` None: there is one, which need not be named; ``provider``: one for the examples."""
    return "\n".join(_lines(customer, digest, adapters, fleet, provider)) + "\n"


def _lines(
    customer: str, digest: str, adapters: Sequence[str], fleet: str | None, provider: str | None
) -> Iterator[str]:
    yield "# yaml-language-server: $schema=../schema.json"
    yield f"customer: {_scalar(customer)}"
    if fleet is not None:
        yield _commented(f"fleet: {_scalar(fleet)}", "which fleet serves the adapters")
    yield _commented("api_keys:", "digests only; a further one: failsoft policies new-key " + customer)
    yield f'  - "{digest}"'
    listed = ", ".join(_scalar(adapter) for adapter in adapters)
    yield _commented(f"adapters: [{listed}]", "as the boxes serve them and as agents ask for them")
    yield ""
    yield "# All below may be left out; what is written here replaces the key of defaults.yaml whole."
    examples = _examples(customer, adapters[0] if adapters else f"customer_{customer}_v1", provider)
    for key in (*examples, *(CustomerFile.model_fields.keys() - examples.keys() - set(_REQUIRED))):
        for line in examples.get(key) or [_example(f"{key}: …", _purpose(key))]:
            yield f"# {line}"


def _examples(customer: str, adapter: str, provider: str | None) -> dict[str, list[str]]:
    later = re.sub(r"\d+$", lambda number: str(int(number[0]) + 1), adapter)
    asked = [
        f"  - provider: {_scalar(provider or 'hosted')}",
        _example("    system_prompt: |", "house style for the generic model"),
        f"      Answer as the support agent of {customer}. Be brief and polite.",
        _example("    drop: [logprobs]", "request fields that this provider must not see"),
    ]
    return {
        "aliases": [
            _example(f"aliases: {{{_scalar(customer)}: {_scalar(adapter)}}}", "a name that stays when "
                       + (f"{later} comes" if later != adapter else "the next version comes")),
        ],
        "ttft_budget": [_example("ttft_budget: 2s", "streams: wait no longer for the own adapter's first token")],
        "plain_budget": [_example("plain_budget: 30s", "plain requests: the same, for the whole answer")],
        "deadline": [_example("deadline: 60s", "until the first content is out, whoever answers")],
        "stall_timeout": [_example("stall_timeout: 10s", "between two frames")],
        "on_broken_stream": [_example("on_broken_stream: resume", "restart, error")],
        "seed_streams": [_example("seed_streams: true", "a sampled tool call can be made again")],
        "priority": [_example("priority: standard", "high, standard, low")],
        "drills": [_example("drills: {every: 24h}", "prove that the fallback works; or {share: 0.5%} of the traffic")],
        "limits": ["limits: {requests_per_minute: 600, tokens_per_minute: 400000, concurrency: 40}"],
        "fallback": [
            _example("fallback:", "who answers when the own adapter cannot, in this order"),
            *(asked if provider is not None else []),
            _example("  - base: {}", "the shared base without the adapter, if a box is up"),
            '  - static: "We are in reduced mode; please retry in a minute."',
        ],
        "hosted": [
            _example("hosted: {allowed: true, usd_per_day: 25}", "allowed: false keeps every token on your own boxes")
        ],
    }  # fmt: skip


def _commented(line: str, comment: str, at: int = COMMENT_AT) -> str:
    return f"{line:<{at - 2}}  # {comment}"


def _example(line: str, comment: str) -> str:
    return _commented(line, comment, COMMENT_AT - len("# "))


def _purpose(key: str) -> str:
    return (CustomerFile.model_fields[key].description or "").partition("\n")[0]
