"""How vLLM 0.32 says no: its own checks, pydantic's findings, and FastAPI's bare details, as they were seen."""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec

from gateway.errors import RequestError

BUSY: Final = (
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
)
"""``QueueOverflowError`` in ``vllm/exceptions.py``."""
MESSAGE_KIND: Final = "ChatCompletionDeveloperMessageParam"
"""The first of the kinds of message that pydantic tries; its findings come first."""

_KINDS: Final = {
    "array": ("list_type", "Input should be a valid list"),
    "bool": ("bool_parsing", "Input should be a valid boolean, unable to interpret input"),
    "float": ("float_parsing", "Input should be a valid number, unable to parse string as a number"),
    "int": ("int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    "object": ("model_attributes_type", "Input should be a valid dictionary or object to extract fields from"),
    "str": ("string_type", "Input should be a valid string"),
}
"""Pydantic's kind of finding and its words, by the type that msgspec expected."""
_EXPECTED: Final = re.compile(r"Expected `(\w+)")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")


EMPTY: Final = "Cannot apply chat template to an empty conversation. Provide at least one message."
INVALID: Final = "Bad Request"
"""The type of what pydantic found, whose words are the same at every endpoint."""


class Unworded(RequestError):
    """An error that FastAPI answers by itself: only a ``detail``, no envelope."""


def nowhere() -> RequestError:
    """No such path."""
    return Unworded(404, "Not Found")


def wrong_method() -> RequestError:
    """The path is there, with another method."""
    return Unworded(405, "Method Not Allowed")


def unknown_model(model: str, base: str) -> RequestError:
    """Nobody of that name here."""
    message = f"The model `{model}` does not exist. Valid aliases: {base}."
    return RequestError(404, message, type="NotFoundError", param="model")


def refused(message: str, *, param: str | None = None, value: object = None) -> RequestError:
    """One of vLLM's own checks. Its message names the parameter, with its value if there is one."""
    if param is not None:
        message += f" (parameter={param}{'' if value is None else f', value={value}'})"
    return RequestError(400, message, type="BadRequestError", param=param)


def bad_adapter(message: str) -> RequestError:
    """What is wrong with a request about an adapter."""
    return RequestError(400, message, type="InvalidUserInput")


def invalid(message: str, *, param: str | None = None, kind: str = "value_error") -> RequestError:
    """One finding of pydantic, as vLLM's handler words it."""
    location = f", 'loc': '{param}'" if param else ""
    text = f"1 validation error:\n  {{'type': '{kind}'{location}, 'msg': {message!r}}}"
    return RequestError(400, text, type=INVALID, param=param)


def another_media_type() -> RequestError:
    """The body is not declared to be JSON."""
    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    return RequestError(400, message, type=INVALID)


def undecodable(
    body: bytes, error: msgspec.DecodeError | UnicodeDecodeError, *, message_kind: str | None = MESSAGE_KIND
) -> RequestError:
    """What is said of a body that ``error`` says cannot be understood; ``message_kind``: what pydantic calls a message
    in which it finds fault."""
    if isinstance(error, msgspec.ValidationError):
        return _unfit(str(error), message_kind)
    if not body:
        return invalid("Field required", param="body", kind="missing")
    try:
        json.loads(body)
    except json.JSONDecodeError as found:
        return invalid("JSON decode error", param=f"body.{found.pos}", kind="json_invalid")
    except UnicodeDecodeError:
        return Unworded(400, "There was an error parsing the body")
    # Python's parser takes what is no JSON (NaN), and so does vLLM; msgspec does not.
    return invalid("JSON decode error", param="body.0", kind="json_invalid")


def _unfit(message: str, message_kind: str | None) -> RequestError:
    """Pydantic's finding from msgspec's: its path with dots, and the field that is missing in it."""
    message, _, path = message.partition(" - at `$")
    location = "body" + re.sub(r"\[(\d+)\]", r".\1", path.rstrip("`"))
    if message_kind is not None:
        location = re.sub(r"^(body\.messages\.\d+)", rf"\1.{message_kind}", location)
    if missing := _MISSING.match(message):
        return invalid("Field required", param=f"{location}.{missing[1]}", kind="missing")
    expected = _EXPECTED.match(message)
    kind, words = _KINDS.get(expected[1] if expected else "", ("value_error", message))
    return invalid(words, param=location, kind=kind)


def detail_body(error: RequestError) -> bytes:
    """The body of an ``Unworded`` error."""
    return msgspec.json.encode({"detail": error.message})
