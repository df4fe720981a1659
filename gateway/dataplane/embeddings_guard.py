"""What counts as an answer of `/v1/embeddings`."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.stream_guard import error_frame
from gateway.errors import ProtocolError


class _Vector(msgspec.Struct):
    embedding: msgspec.Raw


class _Answer(msgspec.Struct):
    data: list[_Vector] | None = None
    model: str | None = None
    usage: Any = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer).decode


def check_embeddings(body: bytes, inputs: int) -> tuple[str | None, Any]:
    """The model that the answer names, and its usage. Raises what a body stands for that is no vector of each input:
    one too few would shift all others in the client's index.
    """
    try:
        answer = _answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"a 200 whose body is no embeddings: {error}") from error
    if answer.error is not None:
        raise error_frame(body)
    if answer.data is None or len(answer.data) != inputs:
        raise ProtocolError(f"{len(answer.data or ())} vectors for {inputs} inputs")
    if not all(bytes(vector.embedding).startswith((b"[", b'"')) for vector in answer.data):
        raise ProtocolError("an embedding that is no vector")
    return answer.model, answer.usage
