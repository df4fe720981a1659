"""Compiles the versions of one gateway, one after the other: what has not changed since the last is not done again.

Of 10,000 customers a version changes a few. What a customer comes to depends on its own part of the document and on
what all have in common (:class:`~gateway.policy.compile.Frame`): where both are as they were, to the byte, it is as it
was too. Whether all hold together is looked at in every version. What a store holds is never taken for validated: a
part is known because this very process has validated it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.errors import PolicyError
from gateway.policy.compile import CompiledCustomer, Frame, assembled, refuse_inconsistent
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.policy_set import PolicySet, StoredDocument, stored_document, validated, validated_customers
from gateway.policy.versions import StoredVersion


@dataclass(frozen=True, slots=True)
class _Known:
    """The last version. ``common``: what its frame was made of; ``customers``: by the digest of their parts."""

    common: tuple[bytes, bytes]
    frame: Frame
    customers: Mapping[bytes, CompiledCustomer]


class Compiler:
    """``compile`` each version in turn, in one thread at a time. ``env`` holds what ``${NAME}`` refers to."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._known: _Known | None = None

    def compile(self, version: StoredVersion) -> CompiledPolicy:
        """What the request path reads: what :func:`~gateway.policy.compile.compile_policy` makes of the whole set.

        Raises PolicyError, with everything that is wrong.
        """
        document = stored_document(version.document)
        common = bytes(document.fleet), bytes(document.defaults)
        digests = [hashlib.blake2b(raw, digest_size=20).digest() for raw in document.customers]
        known = self._known
        parts = None
        if known is not None and known.common == common:
            frame = known.frame
            parts = _changed(known, document, digests)
        if known is None or parts is None:
            policy_set = validated(document)
            refuse_inconsistent(policy_set)
            frame = Frame(policy_set.fleet, policy_set.defaults, self._env)
            parts = [frame.customer(customer) for customer in policy_set.customers]
        self._known = _Known(common, frame, dict(zip(digests, parts, strict=True)))
        head = version.head
        return assembled(frame, parts, version=head.version, store_id=head.store_id, created_s=version.created_s)


def _changed(known: _Known, document: StoredDocument, digests: Sequence[bytes]) -> list[CompiledCustomer] | None:
    """All customers, of which only those are compiled that are not known.

    None where anything is wrong: that all are looked at then says everything that is.
    """
    new = [index for index, digest in enumerate(digests) if digest not in known.customers]
    frame = known.frame
    try:
        files = validated_customers(document, new)
        refuse_inconsistent(PolicySet(frame.written, frame.defaults, files))
    except PolicyError:
        return None
    compiled = dict(zip(new, map(frame.customer, files), strict=True))
    parts = [compiled.get(index) or known.customers[digest] for index, digest in enumerate(digests)]
    return parts if _hold_together(parts) else None


def _hold_together(parts: Sequence[CompiledCustomer]) -> bool:
    """Whether customers that are in order each by itself are so side by side.

    What :mod:`gateway.policy.crosscheck` sees between customers, without saying where: that is left to it.
    """
    names = {part.policy.name for part in parts}
    keys = {key.digest for part in parts for key in part.keys}
    adapters = {adapter for part in parts for adapter in part.policy.adapters}
    return (
        len(names) == len(parts)
        and len(keys) == sum(len(part.keys) for part in parts)
        and len(adapters) == sum(len(part.policy.adapters) for part in parts)
        and not any(alias in adapters for part in parts for alias in part.policy.aliases)
    )
