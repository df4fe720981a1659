"""One whole set of policies, and the document in which a version of it is stored.

The document is JSON without the YAML's comments, layout and file names, with customers in order of their names, so that
equal policies give equal digests. References stay ``${NAME}``.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, overload

import msgspec
from pydantic import ValidationError

from gateway.errors import PolicyError
from gateway.policy.diagnostics import Diagnostic, key_path
from gateway.policy.model_errors import findings
from gateway.policy.models import CustomerFile, FleetFile, Keys, Rules

_Model = TypeVar("_Model", bound=Keys)

FORMAT = 1
"""Raised when an older gateway could no longer read what is written."""


FAST = 1
"""Of zlib's levels. Files of customers are alike: 12 MB of 10,000 take 1 MB, in a tenth of a second."""


class StoredDocument(msgspec.Struct, frozen=True):
    """A document whose parts have not been read yet."""

    format: int
    fleet: msgspec.Raw
    defaults: msgspec.Raw
    customers: list[msgspec.Raw]


class Unread(Sequence[CustomerFile]):
    """Customers by what was made of them, ``documents``, which is valid: they are read only if somebody looks.

    ``adapters``: how many all of them have.
    """

    def __init__(self, documents: Iterable[bytes], adapters: int) -> None:
        self._documents = tuple(documents)
        self.adapters = adapters

    @cached_property
    def _all(self) -> tuple[CustomerFile, ...]:
        return tuple(map(CustomerFile.model_validate_json, self._documents))

    def __len__(self) -> int:
        return len(self._documents)

    @overload
    def __getitem__(self, index: int) -> CustomerFile: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[CustomerFile, ...]: ...
    def __getitem__(self, index: int | slice) -> CustomerFile | tuple[CustomerFile, ...]:
        return self._all[index]

    def __eq__(self, other: object) -> Any:
        return self._all == (other._all if isinstance(other, Unread) else other)

    def __hash__(self) -> int:
        return hash(self._all)


@dataclass(frozen=True)
class PolicySet:
    """Validated policies. ``sources``: the files' texts by their path in the folder; empty when read from a store."""

    fleet: FleetFile
    defaults: Rules
    customers: Sequence[CustomerFile]
    sources: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[Diagnostic, ...] = ()
    checked: bool = field(default=False, init=False, compare=False)
    """They were found to hold together, and need no second look. A changed copy does."""
    proven: bool = field(default=False, init=False, compare=False)
    """Each customer was compiled already, for a look whether that works."""
    _documents: Mapping[str, bytes] = field(default_factory=dict, init=False, compare=False, repr=False)

    def found_good(self, documents: Mapping[str, bytes], *, proven: bool = False) -> PolicySet:
        """Itself, ``checked``. ``documents``: what was made of customers already, by name."""
        object.__setattr__(self, "checked", True)
        object.__setattr__(self, "proven", proven)
        object.__setattr__(self, "_documents", documents)
        return self

    @cached_property
    def document(self) -> bytes:
        """The normalised JSON text of the set."""
        return msgspec.json.encode(
            {
                "format": FORMAT,
                "fleet": _dump(self.fleet),
                "defaults": _dump(self.defaults),
                "customers": [msgspec.Raw(one) for _, one in sorted(self._customer_documents())],
            }
        )

    def _customer_documents(self) -> Iterable[tuple[str, bytes]]:
        known = self._documents
        if len(known) == len(self.customers):
            return known.items()
        return ((one.customer, known.get(one.customer) or dumped(one)) for one in self.customers)

    @property
    def adapters(self) -> int:
        """How many there are."""
        if isinstance(self.customers, Unread):
            return self.customers.adapters
        return sum(len(customer.adapters) for customer in self.customers)

    @cached_property
    def deflated(self) -> tuple[bytes, bytes]:
        """The document and the sources' texts by path (JSON), as they are kept."""
        texts = self.document, msgspec.json.encode(dict(self.sources))
        # Of 20 MB this takes a tenth of a second, in which the interpreter is not needed.
        with ThreadPoolExecutor(len(texts)) as both:
            document, sources = both.map(lambda text: zlib.compress(text, FAST), texts)
        return document, sources

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the document, in hex."""
        return hashlib.sha256(self.document).hexdigest()


def _dump(model: Keys) -> msgspec.Raw:
    return msgspec.Raw(dumped(model))


def dumped(model: Keys) -> bytes:
    """A part of the document."""
    return model.model_dump_json(exclude_unset=True).encode()


def policy_set_from_document(document: bytes) -> PolicySet:
    """The set that a document holds. Raises PolicyError when this release cannot read it."""
    return validated(stored_document(document))


def stored_document(document: bytes) -> StoredDocument:
    """Its parts, unread. Raises PolicyError when this release cannot read any."""
    try:
        read = msgspec.json.decode(document, type=StoredDocument)
    except msgspec.DecodeError as error:
        raise PolicyError((Diagnostic("the stored document", 0, 0, "", f"cannot be read: {error}"),)) from None
    if read.format != FORMAT:
        message = f"has format {read.format}, and this release reads format {FORMAT}"
        raise PolicyError((Diagnostic("the stored document", 0, 0, "format", message),))
    return read


def validated(read: StoredDocument) -> PolicySet:
    """The set that its parts are. Raises PolicyError.

    Customers are validated one at a time, so that a thread which does this never holds up the others for long.
    """
    wrong: list[Diagnostic] = []
    fleet = _load(FleetFile, read.fleet, "fleet", wrong)
    defaults = _load(Rules, read.defaults, "defaults", wrong)
    customers = _customers(enumerate(read.customers), wrong)
    if wrong or fleet is None or defaults is None:
        raise PolicyError(tuple(wrong))
    return PolicySet(fleet, defaults, customers)


def validated_customer(raw: bytes | msgspec.Raw, index: int) -> CustomerFile:
    """One of its customers. Raises PolicyError."""
    wrong: list[Diagnostic] = []
    found = _load(CustomerFile, raw, f"customers[{index}]", wrong)
    if found is None:
        raise PolicyError(tuple(wrong))
    return found


def _customers(raws: Iterable[tuple[int, msgspec.Raw]], wrong: list[Diagnostic]) -> tuple[CustomerFile, ...]:
    found = (_load(CustomerFile, raw, f"customers[{index}]", wrong) for index, raw in raws)
    return tuple(customer for customer in found if customer is not None)


def _load(model: type[_Model], raw: bytes | msgspec.Raw, part: str, wrong: list[Diagnostic]) -> _Model | None:
    try:
        return model.model_validate_json(bytes(raw))
    except ValidationError as error:
        found = list(findings(error, model, 0))
        wrong += [
            Diagnostic("the stored document", 0, 0, key_path((part, *one.at)), one.message, one.hint) for one in found
        ]
        return None
