"""Compiles the versions of one gateway, one after the other: what has not changed since the last is not done again.

Of 10,000 customers a version changes a few. What a customer comes to depends on its own part of the document and on
what all have in common (:class:`~gateway.policy.compile.Frame`): where both are as they were, to the byte, it is as it
was too. Whether all hold together is looked at in every version. What a store holds is never taken for validated: a
part is known because this very process has validated it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from pydantic import ValidationError

from gateway.errors import PolicyError
from gateway.policy import models
from gateway.policy.compile import Common, CompiledCustomer, Frame, assembled, compile_policy, refuse_inconsistent
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.crosscheck import crosscheck_own
from gateway.policy.models import CustomerFile
from gateway.policy.plain_customer import PlainCustomer, plain_from_json
from gateway.policy.policy_set import PolicySet, StoredDocument, stored_document, validated, validated_customer
from gateway.policy.rules_apart import MOST_RULES, RULES
from gateway.policy.together import distinct
from gateway.policy.uncollected import uncollected
from gateway.policy.versions import StoredVersion

AT_ONCE = 100
"""Customers that are validated before they are compiled: with 10,000 validated at once a compilation peaked at 129 MiB
and not at 80, and to let go of them held everybody up for 20 ms."""


Rules = bytes
"""A customer's, as they are written in the document: an object."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The last version. ``made_of``: the frame's parts of it; ``customers``: by the digest of theirs."""

    made_of: tuple[bytes, bytes]
    frame: Frame
    customers: Mapping[bytes, CompiledCustomer]


class Compiler:
    """``compile`` each version in turn, in one thread at a time. ``env`` holds what ``${NAME}`` refers to."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._known: _Known | None = None

    @uncollected()
    def compile(self, version: StoredVersion) -> CompiledPolicy:
        """What the request path reads: what :func:`~gateway.policy.compile.compile_policy` makes of the whole set.

        Raises PolicyError, with everything that is wrong.
        """
        document = stored_document(version.document)
        head, created_s = version.head, version.created_s
        digests = [hashlib.blake2b(raw, digest_size=20).digest() for raw in document.customers]
        try:
            common = self._common(document)
            parts = _parts(common, document, digests)
        except PolicyError:
            # Something is wrong. That all are looked at side by side says everything that is.
            policy_set = validated(document)
            return compile_policy(
                policy_set, version=head.version, store_id=head.store_id, created_s=created_s, env=self._env
            )
        self._known = replace(common, customers=dict(zip(digests, parts, strict=True)))
        return assembled(common.frame, parts, version=head.version, store_id=head.store_id, created_s=created_s)

    def _common(self, document: StoredDocument) -> _Known:
        """What is known under this fleet and these defaults. Raises PolicyError where they cannot be used."""
        made_of = bytes(document.fleet), bytes(document.defaults)
        if self._known is not None and self._known.made_of == made_of:
            return self._known
        alone = validated(msgspec.structs.replace(document, customers=[]))
        refuse_inconsistent(alone)
        return _Known(made_of, Frame(alone.fleet, alone.defaults, self._env), {})


def _parts(known: _Known, document: StoredDocument, digests: Sequence[bytes]) -> list[CompiledCustomer]:
    """All customers, of which only those are compiled that are not known. Raises PolicyError."""
    frame = known.frame
    new = [index for index, digest in enumerate(digests) if digest not in known.customers]
    compiled: dict[int, CompiledCustomer] = {}
    reader = _Reader(document)
    commons: dict[Rules, Common] = {}
    for start in range(0, len(new), AT_ONCE):
        which = new[start : start + AT_ONCE]
        read = [reader.read(index) for index in which]
        plain = [customer for customer, _ in read if isinstance(customer, PlainCustomer)]
        files = [customer for customer, _ in read if isinstance(customer, CustomerFile)]
        if files:
            refuse_inconsistent(PolicySet(frame.written, frame.defaults, files))
        if any(found.severity == "error" for found in crosscheck_own(frame.written, *plain)):
            raise PolicyError(())
        for index, (customer, rules) in zip(which, read, strict=True):
            common = None if rules is None else commons.get(rules)
            if common is None and isinstance(customer, CustomerFile):
                # Whoever has rules that were not seen before was read whole.
                common = frame.common(customer)
                if rules is not None:
                    commons[rules] = common
            if common is None:
                raise LookupError("the rules of a customer that was read without them are not known")
            compiled[index] = frame.with_rules(customer, common)
    parts = [compiled.get(index) or known.customers[digest] for index, digest in enumerate(digests)]
    if not _hold_together(parts, frame):
        raise PolicyError(())
    return parts


class _Reader:
    """Reads customers, most of whom have the rules of others: those are validated once."""

    def __init__(self, document: StoredDocument) -> None:
        self._document = document
        self._seen: set[Rules] = set()

    def read(self, index: int) -> tuple[CustomerFile, Rules | None] | tuple[PlainCustomer, Rules]:
        """One customer, and its rules as they are written; without these, where they are those of one that was read
        before. None for the rules where that is not known. Raises PolicyError."""
        raw = bytes(self._document.customers[index])
        rules, rest = _apart(raw)
        if rules is not None and rules in self._seen:
            if (plain := plain_from_json(rest)) is not None:
                return plain, rules
            own = validated_customer(rest, index)
            return (own, rules) if own.model_fields_set.isdisjoint(RULES) else (validated_customer(raw, index), None)
        customer = validated_customer(raw, index)
        if rules is None or len(self._seen) > MOST_RULES or not _are_apart(rules, rest):
            return customer, None
        self._seen.add(rules)
        return customer, rules


def _apart(raw: bytes) -> tuple[Rules | None, bytes]:
    """A customer's rules and the rest of it, each an object, where both were written as releases do: rules first.

    None for the rules of any other. Inside of a text there are no quotes but after a backslash, so that what is found
    is a key; if it is that of something deeper, what stands before it is no object.
    """
    at = raw.find(b'"customer":')
    if at == 1:
        return b"{}", raw
    return (raw[: at - 1] + b"}", b"{" + raw[at:]) if at > 1 and raw[at - 1 : at] == b"," else (None, raw)


def _are_apart(rules: Rules, rest: bytes) -> bool:
    """Whether these are rules and nothing else, and the rest has none."""
    try:
        models.Rules.model_validate_json(rules)
        return CustomerFile.model_validate_json(rest).model_fields_set.isdisjoint(RULES)
    except ValidationError:
        return False


def _hold_together(parts: Sequence[CompiledCustomer], frame: Frame) -> bool:
    """Whether customers that are in order each by itself are so side by side."""
    return distinct(
        [part.policy.name for part in parts],
        [*frame.admin_tokens, *(key.digest for part in parts for key in part.keys)],
        [adapter for part in parts for adapter in part.policy.adapters],
        (alias for part in parts for alias in part.policy.aliases),
    )
