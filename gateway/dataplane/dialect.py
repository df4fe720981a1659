"""How each endpoint's answers are checked and worded: one table, of what is not chat or completions.

=========== ================================================== ===================================================
endpoint    a box's stream and plain answer are checked by     a provider's chat answer is worded by
=========== ================================================== ===================================================
responses   :class:`ResponsesGuard`, :func:`check_response`    :class:`ResponsesAnswer`
messages    :class:`MessagesGuard`, :func:`check_message`      :class:`MessagesAnswer`
embeddings  (no streams), :func:`check_embeddings`             nobody: they never leave the boxes
=========== ================================================== ===================================================

Chat and completions have their own guard and are worded by :class:`AnswerShape` alone. The fixed text of a `static`
step goes the way of a provider's answer.
"""

from __future__ import annotations

from typing import Any

from gateway.clock import wall_s
from gateway.dataplane.embeddings_guard import check_embeddings
from gateway.dataplane.guard import Guard
from gateway.dataplane.messages_guard import MessagesGuard, check_message
from gateway.dataplane.plain_guard import check_plain
from gateway.dataplane.request import Request
from gateway.dataplane.responses_guard import ResponsesGuard, check_response
from gateway.dataplane.said import Said
from gateway.dataplane.splice import Splice
from gateway.dataplane.stream_guard import Reshape, StreamGuard
from gateway.dataplane.translated_stream import TranslatedGuard, Wording
from gateway.upstream.messages_answer import MessagesAnswer
from gateway.upstream.provider_answer import AnswerShape
from gateway.upstream.responses_answer import ResponsesAnswer


def wording_of(request: Request) -> Wording | None:
    """What words a chat answer as the answer to ``request``; None where it needs no other words."""
    match request.endpoint:
        case "responses":
            return ResponsesAnswer(request.fields, request_id=request.id, created_s=int(wall_s()))
        case "messages":
            return MessagesAnswer(request_id=request.id)
        case _:
            return None


def guard_of(request: Request, shape: AnswerShape | None, said: Said | None, splice: Splice | None = None) -> Guard:
    """The checks of a stream that answers ``request``; ``shape``: a provider's; ``splice``: it takes the place of one
    that broke off, and notes itself what is told."""
    guard: Guard
    if splice is not None:
        fit = splice.frame if shape is None else _one_after_other(shape.frame, splice.frame)
        return StreamGuard(1, reshape=fit, strip_usage=not request.include_usage, strict=shape is None)
    if shape is None and request.endpoint == "responses":
        guard = ResponsesGuard()
    elif shape is None and request.endpoint == "messages":
        guard = MessagesGuard()
    else:
        reshape = None if shape is None else shape.frame
        chat = StreamGuard(
            request.choices,
            reshape=reshape,
            strip_usage=not request.include_usage,
            said=said,
            owes_usage=said is not None and request.resumes and request.include_usage and request.choices == 1,
        )
        wording = wording_of(request)
        guard = chat if wording is None else TranslatedGuard(chat, wording)
    return guard


def _one_after_other(first: Reshape, second: Reshape) -> Reshape:
    def both(payload: bytes) -> bytes | None:
        shaped = first(payload)
        return None if shaped is None else second(shaped)

    return both


def checked(request: Request, shape: AnswerShape | None, body: bytes) -> tuple[bytes, str | None, Any]:
    """A plain answer as the client should see it, the model that it names, and what it says that it took.

    Raises what a body that is no whole answer stands for.
    """
    if shape is None:
        match request.endpoint:
            case "responses":
                return body, *check_response(body)
            case "messages":
                return body, *check_message(body)
            case "embeddings":
                return body, *check_embeddings(body, request.choices)
    model, usage = check_plain(body)
    if shape is not None:
        body = shape.body(body)
        model = shape.model
        wording = wording_of(request)
        if wording is not None:
            body = wording.body(body)
    return body, model, usage
