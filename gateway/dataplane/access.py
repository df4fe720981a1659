"""Who asks, and what is theirs: the customer behind a key, its models, and nothing of anybody else's."""

from __future__ import annotations

import hashlib
import hmac

from gateway.clock import today_utc
from gateway.dataplane.conversation import conversation_of
from gateway.dataplane.listing import model_object, models_list
from gateway.dataplane.request import Request
from gateway.errors import RequestError
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy

MODELS = "/v1/models"


def authenticate(policy: CompiledPolicy, authorization: bytes, x_api_key: bytes = b"") -> CustomerPolicy:
    """The customer whose key the `Authorization` header carries or, where that has none, `x-api-key` as Anthropic's
    SDK sends it. Raises :class:`RequestError` (401)."""
    scheme, _, key = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not key.strip():
        key = x_api_key
    if not key.strip():
        raise RequestError(
            401,
            "No API key: send it as `Authorization: Bearer KEY` (the OpenAI SDK's `api_key`) or as `x-api-key`.",
            code="missing_api_key",
        )
    customer = policy.authenticate(key.strip(), today_utc())
    if customer is None:
        raise RequestError(
            401, "Incorrect API key: no customer of this gateway has it, or it has expired.", code="invalid_api_key"
        )
    return customer


def require_operator(policy: CompiledPolicy, token: bytes, own_digest: bytes | None) -> None:
    """Raise :class:`RequestError` (403) unless ``token`` is an admin token that may change something.

    ``own_digest``: SHA-256 of the gateway's own one, where it has one.
    """
    digest = hashlib.sha256(token).digest()
    if token and own_digest is not None and hmac.compare_digest(digest, own_digest):
        return
    found = policy.admin(token, today_utc())
    if found is None or found.scope != "write":
        raise RequestError(
            403,
            "`x-failsoft-fallback: only` needs an admin token with the scope write in `x-failsoft-admin-token`.",
            code="operator_only",
        )


def require_model(customer: CustomerPolicy, model: str) -> None:
    """Raise :class:`RequestError` (404) unless ``model`` is an adapter or an alias of the customer's own.

    The very same answer whether nobody has this one or another customer does.
    """
    if model not in customer.adapters and model not in customer.aliases:
        raise _not_found(model)


def resolve(customer: CustomerPolicy, request: Request, conversation: bytes) -> None:
    """Find the adapter for a model that is none itself, once a request; ``conversation``: what its client calls it.

    Raises :class:`RequestError`: 404 unless it is an alias of the customer's own, 400 where the body is not JSON.
    """
    alias = customer.aliases.get(request.model)
    if alias is None:
        raise _not_found(request.model)
    if request.endpoint == "embeddings":
        # Vectors of two adapters do not compare, so that all of an index have to be one's.
        request.resolved(alias.heaviest)
    elif alias.only is not None:
        request.resolved(alias.only, *alias.predecessors)
    else:
        request.resolved(*alias.versions(conversation_of(request.endpoint, request.body, conversation)))


def _not_found(model: str) -> RequestError:
    return RequestError(
        404,
        f"The model `{model}` does not exist or you do not have access to it. GET /v1/models lists yours.",
        param="model",
        code="model_not_found",
    )


def models_body(policy: CompiledPolicy, customer: CustomerPolicy, path: str) -> bytes:
    """The answer to ``GET /v1/models`` or, with a model behind it, to that. Raises :class:`RequestError` (404)."""
    if path == MODELS:
        return models_list(policy, customer)
    model = path.removeprefix(MODELS + "/")
    require_model(customer, model)
    return model_object(policy, customer, model)
