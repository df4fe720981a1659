"""A customer whose own part is as most are: with plain words throughout, and all in the form in which it is stored.

Thousands of them are read at once. A struct takes a quarter of the time of a
:class:`~gateway.policy.models.CustomerFile`. Whatever is not plain, or is wrong, is left to that. What a struct is made
of the model takes too, for the same, and writes to the same bytes: a property test holds it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from gateway.policy.models import CustomerFile

_Name = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
_Model = Annotated[str, msgspec.Meta(pattern=r"\A(?=.{1,256}\Z)[A-Za-z0-9_-]+(?:[./:][A-Za-z0-9_-]+)*\Z")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
DIGITS = 64
_Text = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._-]+\Z")]


class PlainKey(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An API key in its longer form."""

    sha256: _Digest
    name: _Text | None = None
    expires: dt.date | None = None


class PlainCustomer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Of a customer's file all that is no rule."""

    customer: _Name
    fleet: _Name | None = None
    api_keys: list[_Digest | PlainKey]
    adapters: list[_Model]
    written_aliases: dict[_Model, _Model] | msgspec.UnsetType = msgspec.field(name="aliases", default=msgspec.UNSET)

    @property
    def aliases(self) -> Mapping[str, str]:
        """Names that stay; none where none are written."""
        return {} if isinstance(self.written_aliases, msgspec.UnsetType) else self.written_aliases

    @property
    def digests(self) -> list[str]:
        """Of all API keys."""
        return [key if isinstance(key, str) else key.sha256 for key in self.api_keys]


Own = CustomerFile | PlainCustomer
"""What a customer has of its own, besides rules."""

_decoder = msgspec.json.Decoder(PlainCustomer)


def plain_from_json(raw: bytes) -> PlainCustomer | None:
    """None for any other."""
    try:
        return _decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def plain_from_values(values: Mapping[str, Any]) -> PlainCustomer | None:
    """None for any other, and where a key is there with None for its value, which is written otherwise than none."""
    keys = values.get("api_keys")
    if type(keys) is not list:
        return None
    keys = [_prefixed(key) for key in keys]
    try:
        found = msgspec.convert(
            {**values, "api_keys": keys}, PlainCustomer, builtin_types=(dt.date,)
        )  # for a day no text will do
    except msgspec.ValidationError:
        return None
    entries = [key for key in keys if type(key) is dict]
    return None if None in values.values() or any(None in entry.values() for entry in entries) else found


def _prefixed(key: Any) -> Any:
    """With the prefix that may be left out of a digest, and never is where it is stored."""
    if type(key) is str and len(key) == DIGITS:
        return f"sha256:{key}"
    if type(key) is dict and type(digest := key.get("sha256")) is str and len(digest) == DIGITS:
        return {**key, "sha256": f"sha256:{digest}"}
    return key


def written(customer: PlainCustomer) -> bytes:
    """A part of the document."""
    return msgspec.json.encode(customer)
