"""What `/v1` takes and gives, as an OpenAPI 3.1 document: for people, for generators of clients, and for the tests that
ask everything that fits it (``tests/clients/test_any_request.py``).

It says what this gateway looks at and what it answers. Fields that only boxes look at pass through, so objects are
open; a box refuses with 400 what it does not like, in the same envelope.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec

from gateway.dataplane.access import MODELS
from gateway.dataplane.request import PATHS
from gateway.errors import Reason

DESCRIPTION: Final = "/v1/openapi.json"
"""Where the document is. No key is asked for: nothing in it is anybody's."""

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_BOOLEAN: Final[Schema] = {"type": ["boolean", "null"]}
_COUNT: Final[Schema] = {"type": ["integer", "null"], "minimum": 1}
_OBJECT: Final[Schema] = {"type": "object"}
_TEMPERATURE: Final[Schema] = {"type": ["number", "null"], "minimum": 0, "maximum": 2}

_MODEL: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "description": "One of the customer's adapters, or an alias of one: GET /v1/models lists them.",
}
_STREAM: Final[Schema] = {**_BOOLEAN, "description": "Answer in server-sent events."}
_STREAM_OPTIONS: Final[Schema] = {"type": ["object", "null"], "properties": {"include_usage": _BOOLEAN}}
_MESSAGES: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "user", "assistant"]},
            "content": {"type": ["string", "array"], "items": {"$ref": "#/components/schemas/TextPart"}},
        },
    },
}
_TOOLS: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["type", "function"],
        "properties": {
            "type": {"const": "function"},
            "function": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                    "description": _STRING,
                    "parameters": _OBJECT,
                },
            },
        },
    },
}


@dataclass(frozen=True)
class _Operation:
    """One endpoint. ``answers``: fields that each of its plain answers has."""

    summary: str
    required: tuple[str, ...]
    fields: Schema
    answers: Schema
    streams: bool = True


_COMMON: Final[Schema] = {"model": _MODEL, "stream": _STREAM}
_SAMPLED: Final[Schema] = {
    **_COMMON,
    "stream_options": _STREAM_OPTIONS,
    "max_tokens": _COUNT,
    "n": _COUNT,
    "temperature": _TEMPERATURE,
    "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**31},
}
_CHOICES: Final[Schema] = {"type": "array", "minItems": 1, "items": _OBJECT}

_OPERATIONS: Final[dict[str, _Operation]] = {
    "chat": _Operation(
        "A chat completion.",
        ("model", "messages"),
        {
            **_SAMPLED,
            "messages": _MESSAGES,
            "max_completion_tokens": _COUNT,
            "tools": _TOOLS,
            "tool_choice": {"enum": ["none", "auto", "required"]},
            "response_format": {
                "type": ["object", "null"],
                "required": ["type"],
                "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}},
            },
        },
        {"id": _STRING, "object": {"const": "chat.completion"}, "created": {"type": "integer"}, "choices": _CHOICES},
    ),
    "completions": _Operation(
        "A completion of a prompt.",
        ("model", "prompt"),
        {
            **_SAMPLED,
            "prompt": {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
                    {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
                ]
            },
        },
        {"id": _STRING, "object": {"const": "text_completion"}, "created": {"type": "integer"}, "choices": _CHOICES},
    ),
    "responses": _Operation(
        "A response, in the shape of OpenAI's Responses API.",
        ("model", "input"),
        {
            **_COMMON,
            "input": {"type": ["string", "array"], "minLength": 1, "minItems": 1, "items": _OBJECT},
            "instructions": {"type": ["string", "null"]},
            "max_output_tokens": _COUNT,
            "temperature": _TEMPERATURE,
        },
        {"id": _STRING, "object": {"const": "response"}, "output": {"type": "array"}},
    ),
    "messages": _Operation(
        "A message, in the shape of Anthropic's Messages API.",
        ("model", "messages", "max_tokens"),
        {**_COMMON, "messages": _MESSAGES, "max_tokens": {"type": "integer", "minimum": 1}, "system": _STRING},
        {"id": _STRING, "type": {"const": "message"}, "content": {"type": "array"}},
    ),
    "embeddings": _Operation(
        "Vectors of texts, by boxes only: another model's would corrupt an index.",
        ("model", "input"),
        {
            "model": _MODEL,
            "input": {"type": ["string", "array"], "minLength": 1, "minItems": 1, "items": _STRING},
            "encoding_format": {"enum": ["float", "base64"]},
        },
        {"object": {"const": "list"}, "data": {"type": "array"}},
        streams=False,
    ),
}

_REFUSALS: Final[dict[str, str]] = {
    "400": "The body is not JSON, or a field of it is wrong.",
    "401": "No API key, or one that no customer has.",
    "404": "The model does not exist or is another customer's; or its boxes do not serve this endpoint.",
    "405": "This path takes another method; `Allow` names it.",
    "408": "The body did not come.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "422": "A box finds a field wrong.",
    "429": "A limit of the customer's is reached; `Retry-After` says for how long.",
    "500": "A defect of the gateway's.",
    "503": "Nothing that the policy allows could answer. `x-should-retry` says whether asking again helps.",
}
_OF_GETS: Final = ("401", "404", "405", "500", "503")


@cache
def description() -> bytes:
    """The document, as JSON."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "failsoft",
                "version": "1",
                "description": "OpenAI's API, answered by the customer's own adapter or, marked as degraded, by its "
                "policy's fallback.",
            },
            "security": [{"key": []}],
            "paths": {
                **{path: {"post": _post(name, _OPERATIONS[name])} for name, path in PATHS.items()},
                MODELS: {"get": _get("listModels", "The customer's own models.", "Models")},
                f"{MODELS}/{{model}}": {
                    "get": {
                        **_get("retrieveModel", "One of them.", "Model"),
                        "parameters": [{"name": "model", "in": "path", "required": True, "schema": _MODEL}],
                    }
                },
            },
            "components": {
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
                "headers": _headers(),
                "schemas": _schemas(),
            },
        }
    )


def _post(name: str, operation: _Operation) -> Schema:
    answer: Schema = {
        "type": "object",
        "required": ["model", *operation.answers],
        "properties": {
            "model": {**_STRING, "description": "What really answered."},
            **operation.answers,
            "degraded": {"$ref": "#/components/schemas/Degraded"},
        },
    }
    content: Schema = {"application/json": {"schema": answer}}
    if operation.streams:
        content["text/event-stream"] = {
            "schema": {
                **_whole({"data": _STRING}),
                "description": "One event: JSON, or [DONE]. The first has `degraded` where the answer is, or that with "
                "which another model begins; one that has `error` says that the answer broke off.",
            }
        }
    body = {"type": "object", "required": list(operation.required), "properties": operation.fields}
    fallback = {
        "name": "x-failsoft-fallback",
        "in": "header",
        "schema": {"enum": ["never"]},
        "description": "`never`: the own adapter, or an error.",
    }
    timeout = {
        "name": "x-request-timeout-ms",
        "in": "header",
        "schema": {"type": "integer", "minimum": 1},
        "description": "Until the first content; the policy's `deadline` where that is shorter.",
    }
    return {
        "operationId": name,
        "summary": operation.summary,
        "parameters": [fallback, timeout],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "The answer; `degraded` where it is not the own adapter's.",
                "headers": {
                    **_always(),
                    "x-failsoft-degraded": {"$ref": "#/components/headers/Degraded"},
                    "x-failsoft-model": {"$ref": "#/components/headers/Model"},
                },
                "content": content,
            },
            **{status: _refusal(status, "AnthropicError" if name == "messages" else "Error") for status in _REFUSALS},
        },
    }


def _get(name: str, summary: str, schema: str) -> Schema:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {"description": summary, "headers": _always(), "content": content},
            **{status: _refusal(status) for status in _OF_GETS},
        },
    }


def _refusal(status: str, envelope: str = "Error") -> Schema:
    headers = _always()
    if status in ("429", "503"):
        headers["retry-after"] = {"$ref": "#/components/headers/RetryAfter"}
    if status == "405":
        headers["allow"] = {"required": True, "schema": _STRING}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{envelope}"}}}
    return {"description": _REFUSALS[status], "headers": headers, "content": content}


def _always() -> Schema:
    return {
        name: {"$ref": f"#/components/headers/{of}"}
        for name, of in (
            ("x-request-id", "RequestId"),
            ("x-failsoft-served-by", "ServedBy"),
            ("x-failsoft-attempts", "Attempts"),
            ("x-failsoft-policy", "Policy"),
        )
    }


def _headers() -> Schema:
    def header(about: str, schema: Schema = _STRING, *, required: bool = True) -> Schema:
        return {"description": about, "required": required, "schema": schema}

    return {
        "RequestId": header("Names the request in logs."),
        "ServedBy": header("`box:NAME`, `provider:NAME`, `base:BOX`, `static`; `none` on errors."),
        "Attempts": header("How many targets were asked.", {"type": "integer", "minimum": 0}),
        "Policy": header("The version of the policies in force."),
        "Degraded": header("Why it is not the own adapter's.", {"enum": [*Reason]}, required=False),
        "Model": header("What answered instead.", required=False),
        "RetryAfter": header("Seconds.", {"type": "integer", "minimum": 1, "maximum": 30}),
    }


def _schemas() -> Schema:
    nullable = {"type": ["string", "null"]}
    error = {
        "message": _STRING,
        "type": _STRING,
        "param": nullable,
        "code": {"type": ["string", "integer", "null"]},
    }
    degraded = {
        "reason": {"enum": [*Reason]},
        "requested_model": _STRING,
        "served_model": _STRING,
        "served_by": _STRING,
    }
    model = {"id": _STRING, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": _STRING}
    models = {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
    }
    return {
        "Error": _whole({"error": _whole(error)}),
        "AnthropicError": _whole({"type": {"const": "error"}, "error": _whole({"type": _STRING, "message": _STRING})}),
        "Degraded": _whole(degraded),
        "Model": _whole(model),
        "Models": _whole(models),
        "TextPart": _whole({"type": {"const": "text"}, "text": _STRING}),
    }


def _whole(properties: Schema) -> Schema:
    """An object that has all of them."""
    return {"type": "object", "required": [*properties], "properties": properties}
