"""The tokenizer that lies beside an adapter: boxes use the base's, so what training added to it is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from backend.adapters.finding import Finding, error, shown, warning


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """``tokens``: each token's id, added ones too; empty where the file was not there. ``digest`` of that file."""

    digest: str = ""
    tokens: Mapping[str, int] | None = None
    chat_template: str | None = None
    eos_token: str | None = None
    pad_token: str | None = None


def check_tokenizer(own: Tokenizer, base: Tokenizer | None, vocab_size: int | None) -> Iterator[Finding]:
    """Hold the adapter's tokenizer files against the base's, and against its embedding's ``vocab_size`` rows."""
    tokens = own.tokens or {}
    shared = (base.tokens if base is not None else None) or {}  # a base may itself have more tokens than rows
    beyond = sorted(
        name
        for name, number in tokens.items()
        if vocab_size is not None and number >= vocab_size and shared.get(name) != number
    )
    if beyond:
        yield error(
            "tokens-beyond-vocabulary",
            f"{len(beyond)} token{'s' if len(beyond) > 1 else ''} of its tokenizer, such as {shown(beyond[0])}, have "
            f"ids past the base's vocabulary of {vocab_size}",
            "vLLM cannot extend the vocabulary by adapter: train without new tokens, or give it a base of its own.",
        )
    if base is None:
        return
    if base.tokens is not None and own.tokens is not None and own.digest != base.digest:
        yield from _differences(own, tokens, base.tokens, set(beyond))
    if (
        own.chat_template is not None
        and base.chat_template is not None
        and _differ(own.chat_template, base.chat_template)
    ):
        yield warning(
            "chat-template-differs",
            "its chat template is not the base's, and boxes render every prompt with the base's",
            "Train with the base's template, or start the boxes with the one of training (--chat-template).",
        )
    if own.eos_token and base.eos_token and own.eos_token != base.eos_token:
        yield warning(
            "eos-token-differs",
            f"it was trained to end with {shown(own.eos_token)}, the base's tokenizer has {shown(base.eos_token)}",
            "Make sure that generation_config.json of the base ends at both, or answers run on.",
        )


def _differences(
    own: Tokenizer, tokens: Mapping[str, int], base: Mapping[str, int], told: set[str]
) -> Iterator[Finding]:
    added = [name for name in tokens if name not in base and name not in told]
    moved = [name for name, number in tokens.items() if base.get(name, number) != number]
    if added == [own.pad_token]:
        yield warning(
            "pad-token-added",
            f"its tokenizer has a padding token of its own, {shown(added[0])}, that the base's has not",
            "Boxes do not pad, so this is harmless; pad with a token of the base to be rid of the warning.",
        )
    elif added:
        yield error(
            "tokens-added",
            f"its tokenizer has {len(added)} token{'s' if len(added) > 1 else ''} that the base's has not, such as "
            f"{shown(sorted(added)[0])}: boxes cut that text into other tokens than training did",
            "Train with the base's tokenizer, or give the adapter a base of its own.",
        )
    if moved:
        yield error(
            "tokenizer-differs",
            f"{len(moved)} token{'s' if len(moved) > 1 else ''}, such as {shown(sorted(moved)[0])}, have another id in "
            "its tokenizer than in the base's",
            "It was trained with another tokenizer, so most likely on another base: serve it with that one.",
        )


def _differ(one: str, other: str) -> bool:
    return one.strip() != other.strip()
