"""What is said to somebody who names what there is not."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import RequestError
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.diagnostics import nearest

MOST_NAMES = 50
"""That an error lists."""


def unknown_name(param: str, what: str, name: str, known: Iterable[str], these: str) -> RequestError:
    """A 404 that helps: the nearest name, and what names there are, if they are not too many to read."""
    names = sorted(known)
    near = nearest(name, names)
    hint = f" Did you mean {near}?" if near is not None else ""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    there = f" {these}: {', '.join(names[:MOST_NAMES])}{more}." if names else f" {these}: none."
    return RequestError(404, f"{what}{hint}{there}", param=param, code=f"{param}_not_found")


def unknown_customer(name: str, customers: Iterable[str]) -> RequestError:
    """The same of a customer."""
    return unknown_name("customer", f"There is no customer `{name}`.", name, customers, "Customers")


def in_force(policy: CompiledPolicy | None) -> CompiledPolicy:
    """Raises :class:`RequestError` (503) before the first version."""
    if policy is None:
        raise RequestError(503, "No policy version is loaded yet.", type="server_error", code="no_policy")
    return policy
