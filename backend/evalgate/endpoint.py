"""Which endpoint a customer's prompts go to, and under which model's name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from backend.evalgate.case import Case

Side = Literal["baseline", "candidate"]

_OF_CUSTOMER: Final = re.compile(r"(?P<customer>[^=/:#?]+)=(?P<url>https?://.*)", re.DOTALL)
_FIELD: Final = re.compile(r"\{(customer|model)\}")
ADMIN_TOKEN: Final = "x-failsoft-admin-token"  # noqa: S105  # a header's name
FALLBACK: Final = "x-failsoft-fallback"


class BadEndpoint(ValueError):
    """What was given is no address of an endpoint."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``url`` ends before ``/chat/completions``. ``model`` may hold ``{customer}`` and ``{model}`` (the case's own);
    empty: the case's own."""

    url: str
    model: str = ""

    @property
    def shown(self) -> str:
        """As it was written."""
        return f"{self.url}#{self.model}" if self.model else self.url

    def model_for(self, case: Case) -> str:
        """What to ask for. Raises BadEndpoint where nobody says."""
        own = case.model or ""
        name = _FIELD.sub(lambda found: case.customer if found[1] == "customer" else own, self.model) or own
        if not name or ("{model}" in self.model and not own):
            raise BadEndpoint(
                f"{case.customer}'s prompts name no model: write `model` into the set, or #MODEL behind the endpoint"
            )
        return name


@dataclass(frozen=True, slots=True)
class Path:
    """One side of a comparison. ``degraded``: a gateway is asked for the fallback's answer, with an admin token."""

    side: Side
    of_all: Endpoint | None
    of_customer: Mapping[str, Endpoint] = field(default_factory=dict)
    degraded: bool = False

    def endpoint(self, customer: str) -> Endpoint:
        """Raises BadEndpoint where there is none for this customer."""
        found = self.of_customer.get(customer, self.of_all)
        if found is None:
            raise BadEndpoint(f"--{self.side}: no endpoint for {customer}")
        return found

    def as_json(self) -> dict[str, Any]:
        """What the run's folder says of it, by which a rerun knows whether it is the same."""
        return {
            "of_all": None if self.of_all is None else self.of_all.shown,
            "of_customer": {name: found.shown for name, found in sorted(self.of_customer.items())},
            "degraded": self.degraded,
        }


def read_path(side: Side, given: Sequence[str], *, degraded: bool = False) -> Path:
    """From ``[CUSTOMER=]URL[#MODEL]``, each; one without a customer is for all others. Raises BadEndpoint."""
    of_all: Endpoint | None = None
    of_customer: dict[str, Endpoint] = {}
    for text in given:
        named = _OF_CUSTOMER.fullmatch(text)
        endpoint = _endpoint(named["url"] if named else text)
        if named is not None:
            if of_customer.setdefault(named["customer"], endpoint) is not endpoint:
                raise BadEndpoint(f"two endpoints for {named['customer']}")
        elif of_all is not None:
            raise BadEndpoint(f"two endpoints for all customers, {of_all.shown} and {endpoint.shown}")
        else:
            of_all = endpoint
    return Path(side, of_all, of_customer, degraded)


def key_of(side: Side, customer: str, env: Mapping[str, str]) -> str | None:
    """The API key: of this customer at this side, else of the side. A key is only ever sent to the side it is for."""
    prefix = f"FAILSOFT_EVAL_{side.upper()}_KEY"
    suffix = re.sub(r"[^A-Z0-9]", "_", customer.upper())
    return env.get(f"{prefix}_{suffix}") or env.get(prefix) or None


def headers(path: Path, key: str | None, admin_token: str | None) -> dict[str, str]:
    """What goes along with a prompt. Without ``degraded`` a gateway is told to answer with the own adapter or not at
    all: an answer by another model would be taken for the adapter's.
    """
    found = {FALLBACK: "only" if path.degraded else "never"}
    if key:
        found["authorization"] = f"Bearer {key}"
    if path.degraded and admin_token:
        found[ADMIN_TOKEN] = admin_token
    return found


def _endpoint(text: str) -> Endpoint:
    url, _, model = text.partition("#")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.username is not None or not url.isprintable():
        raise BadEndpoint(f"`{text}` is no endpoint: http://HOST:PORT[/v1][#MODEL]; keys come from the environment")
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return Endpoint(f"{parts.scheme}://{parts.netloc}{path}", model)
