"""Names, addresses and digests in policies: what each may look like, and why.

None of the messages repeats what was written: a secret in the wrong place must not end up in a log.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, WithJsonSchema

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
REFERENCE_PATTERN = r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$"
DIGEST_PATTERN = r"^(sha256:)?[0-9a-fA-F]{64}$"

_NAME = re.compile(NAME_PATTERN)
_REFERENCE = re.compile(REFERENCE_PATTERN)
_PLAIN_MODEL = re.compile(r"[A-Za-z0-9_-]{1,256}")
_DIGEST = re.compile(DIGEST_PATTERN)
_STORED_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]{2,}")


def check_name(value: str) -> str:
    """Names of boxes, fleets, providers and customers travel in headers, metric labels and paths."""
    if not _NAME.fullmatch(value):
        raise ValueError("is not a usable name: letters, digits and . _ - only, at most 100, no punctuation first")
    return value


def check_model(value: str) -> str:
    """A model's name is a header's value and may be a path on a box, but never one that leads elsewhere."""
    if _PLAIN_MODEL.fullmatch(value):
        return value  # nearly all, and there may be thousands
    if not value or len(value) > 256 or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("is not a usable model name: printable ASCII without spaces, at most 256 characters")
    if value.startswith("/") or ".." in value:
        raise ValueError("is not a usable model name: it may not start with / or hold ..")
    return value


def check_provider_model(value: str) -> str:
    """LiteLLM's naming: ``openai/gpt-4o-mini``."""
    check_model(value)
    kind, slash, rest = value.partition("/")
    if not slash or not kind or not rest:
        raise ValueError("needs its provider in front, as LiteLLM names models: openai/gpt-4o-mini")
    return value


def check_url(value: str) -> str:
    """An http or https address without credentials, query or fragment."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL: write http://host:port or https://host") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("is not a URL: write http://host:port or https://host")
    if not value.isascii() or not value.isprintable() or " " in value or "\\" in value:
        raise ValueError("is not a URL: it holds characters that a URL may not have")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds credentials: take them out of the URL and write api_key: ${NAME}")
    if parts.query or parts.fragment or value.endswith(("?", "#")):
        raise ValueError("may not have a query or a fragment")
    return value


def check_reference(value: str) -> str:
    """``${NAME}`` and nothing else: policies are in git and in the store, secrets in neither."""
    if _REFERENCE.fullmatch(value):
        return value
    name = value.strip("${} ")
    example = name if _ENVIRONMENT_NAME.fullmatch(name) and value.startswith("$") else "NAME"
    raise ValueError(
        f"has to be a reference such as ${{{example}}} to an environment variable of the gateway; "
        "a literal key is refused, as policies are kept in git and in the store"
    )


def referenced(reference: str) -> str:
    """The environment variable that ``${NAME}`` names."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ValueError("is not a reference")
    return match[1]


def check_digest(value: str) -> str:
    """``sha256:`` and 64 hex digits, in lower case. The prefix may be left out."""
    if _STORED_DIGEST.fullmatch(value):
        return value
    if not _DIGEST.fullmatch(value):
        raise ValueError(
            'is not a SHA-256: write "sha256:" and 64 hex digits, never the key itself; '
            'printf %s "$KEY" | sha256sum prints them'
        )
    return "sha256:" + value.lower().removeprefix("sha256:")


def check_text(value: str) -> str:
    """Any text but none."""
    if not value.strip():
        raise ValueError("is empty")
    return value


Name = Annotated[str, AfterValidator(check_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
ModelName = Annotated[str, AfterValidator(check_model)]
ProviderModel = Annotated[str, AfterValidator(check_provider_model)]
Url = Annotated[str, AfterValidator(check_url), WithJsonSchema({"type": "string", "pattern": "^https?://"})]
Reference = Annotated[
    str, AfterValidator(check_reference), WithJsonSchema({"type": "string", "pattern": REFERENCE_PATTERN})
]
KeyDigest = Annotated[str, AfterValidator(check_digest), WithJsonSchema({"type": "string", "pattern": DIGEST_PATTERN})]
Text = Annotated[str, AfterValidator(check_text)]
