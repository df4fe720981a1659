"""Who asks, and what is theirs: the customer behind a key, its adapters, and nothing of anybody else's."""

from __future__ import annotations

from gateway.clock import today_utc
from gateway.dataplane.listing import adapter_object, adapters_list
from gateway.errors import RequestError
from gateway.policy.compiled import CompiledPolicy, CustomerPolicy

MODELS = "/v1/models"


def authenticate(policy: CompiledPolicy, authorization: bytes) -> CustomerPolicy:
    """The customer whose key the `Authorization` header carries. Raises :class:`RequestError` (401)."""
    scheme, _, key = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not key.strip():
        raise RequestError(
            401,
            "No API key: send it as `Authorization: Bearer KEY` (the OpenAI SDK's `api_key`).",
            code="missing_api_key",
        )
    customer = policy.authenticate(key.strip(), today_utc())
    if customer is None:
        raise RequestError(
            401, "Incorrect API key: no customer of this gateway has it, or it has expired.", code="invalid_api_key"
        )
    return customer


def require_adapter(customer: CustomerPolicy, model: str) -> None:
    """Raise :class:`RequestError` (404) unless ``model`` is the customer's own.

    The very same answer whether nobody has this adapter or another customer does.
    """
    if model not in customer.adapters:
        raise RequestError(
            404,
            f"The model `{model}` does not exist or you do not have access to it. GET /v1/models lists yours.",
            param="model",
            code="model_not_found",
        )


def models_body(policy: CompiledPolicy, customer: CustomerPolicy, path: str) -> bytes:
    """The answer to ``GET /v1/models`` or, with an adapter behind it, to that. Raises :class:`RequestError` (404)."""
    if path == MODELS:
        return adapters_list(policy, customer)
    model = path.removeprefix(MODELS + "/")
    require_adapter(customer, model)
    return adapter_object(policy, customer, model)
