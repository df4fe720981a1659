"""A small OpenAI-compatible server in front of the LiteLLM library, in a process of its own.

Started by :mod:`gateway.upstream.litellm_process`, which hands it a listening socket and three promises: the end of
standard input is the gateway's end, a byte on standard output each second says that the event loop turns, and
standard error is the gateway's log. The gateway itself never imports this module.

What the provider is asked with comes in private headers of this hop (``BASE_HEADER``, ``KEY_HEADER``); no key is ever
read from a body. A provider without an ``api_key`` in the policy (Bedrock, Vertex AI) is asked with the credentials
that LiteLLM documents for the environment. ``drop_params`` is on, so that a parameter that this provider has not got
does not fail the fallback, except for those without which the answer would be another (:data:`_NEEDED`).

LiteLLM ends a stream that broke off with a finish of its own making: :mod:`gateway.upstream.litellm_repairs` tells
those, and the client gets an error frame instead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import litellm
import msgspec
import openai
import uvicorn
from litellm.exceptions import BadRequestError, MidStreamFallbackError, Timeout
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.clock import wall_s
from gateway.tasks import TaskSet
from gateway.upstream import litellm_repairs
from gateway.upstream.litellm_process import BASE_HEADER, HEARTBEAT_S, KEY_HEADER
from gateway.upstream.provider_request import CHAT_FIELDS
from gateway.upstream.refusal import retry_after_s

_TIMEOUT = openai.Timeout(600.0, connect=3.0)
"""Seconds. The gateway's own limits are what ends a request, by closing its connection; this is for none of them."""

_TAKEN = CHAT_FIELDS & inspect.signature(litellm.acompletion).parameters.keys()
"""Fields that LiteLLM takes for parameters of OpenAI's. It hands unknown ones to the provider as they are, and some,
such as ``metadata``, it acts on itself."""

_NEEDED = {"functions", "response_format", "tools"}
"""Parameters that ``drop_params`` must not drop: prose where a tool call or JSON is due is no answer."""

_TURN_FIELDS = {"audio", "content", "function_call", "reasoning_content", "refusal", "role", "tool_calls"}
_USAGE_FIELDS = {
    "completion_tokens",
    "completion_tokens_details",
    "prompt_tokens",
    "prompt_tokens_details",
    "total_tokens",
}

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


class Invented(Exception):
    """LiteLLM ended the stream with a finish that the provider had not sent."""


class ChatEndpoint:
    """``POST /v1/chat/completions``: one request, until it is answered or its client has gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. When the gateway closes its connection the call to the provider is cancelled."""
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        tasks = TaskSet()
        try:
            answer = tasks.spawn(_answer(request.headers, body, scope, receive, send), name="answer")
            gone = tasks.spawn(_disconnected(receive), name="client")
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.close()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(headers: Headers, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    key = headers.get(KEY_HEADER)
    litellm_repairs.begin_stream()
    try:
        answer = await _ask(_parameters(body), headers)
        if not isinstance(answer, CustomStreamWrapper):
            whole = Response(msgspec.json.encode(_whole(answer)), media_type="application/json")
    except Exception as error:
        await _refusal(error, key)(scope, receive, send)
        return
    if not isinstance(answer, CustomStreamWrapper):
        await whole(scope, receive, send)
        return
    try:
        # The first chunk decides whether this is an answer at all: some providers are asked only when it is read.
        try:
            first = await _next(answer)
        except Exception as error:
            await _refusal(error, key)(scope, receive, send)
        else:
            await _relay(answer, first, key, send)
    finally:
        await _close(answer)


async def _ask(parameters: dict[str, Any], headers: Headers) -> object:
    return await litellm.acompletion(
        **parameters,
        api_base=headers.get(BASE_HEADER),
        api_key=headers.get(KEY_HEADER),
        drop_params=True,
        max_retries=0,
        num_retries=0,
        timeout=_TIMEOUT,
        # Otherwise any request with tools imports the MCP gateway of LiteLLM's proxy, which needs a package that
        # LiteLLM itself does not (1.106), and tools of type "mcp" would be run here.
        _skip_mcp_handler=True,
    )


async def _relay(stream: CustomStreamWrapper, first: Any, key: str | None, send: Send) -> None:
    """Send the stream on as OpenAI's events. One that breaks ends with an error event and without ``[DONE]``."""
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    chunk: Any = first
    last = b"data: [DONE]\n\n"
    try:
        while chunk is not None:
            frame = b"data: %b\n\n" % msgspec.json.encode(_part(chunk))
            await send({"type": "http.response.body", "body": frame, "more_body": True})
            chunk = await _next(stream)
    except Exception as error:
        _, envelope = _envelope(error, key)
        last = b"data: %b\n\n" % msgspec.json.encode(envelope)
    await send({"type": "http.response.body", "body": last})


async def _next(stream: CustomStreamWrapper) -> Any | None:
    """The next chunk, None after the last. Raises :class:`Invented` for a finish that is LiteLLM's own."""
    try:
        chunk: Any = await anext(stream)
    except StopAsyncIteration:
        return None
    finished = any(choice.finish_reason for choice in chunk.choices)
    if finished and not litellm_repairs.finish_is_real(stream):
        raise Invented
    return chunk


async def _close(stream: CustomStreamWrapper) -> None:
    # The wrapper closes what it iterates over where that can be closed; Anthropic's iterator hides the response in it.
    response = getattr(stream.completion_stream, "streaming_response", None)
    await stream.aclose()  # type: ignore[no-untyped-call]
    if isinstance(response, AsyncGenerator):
        await response.aclose()


def _parameters(body: bytes) -> dict[str, Any]:
    fields = msgspec.json.decode(body)
    parameters = {name: value for name, value in fields.items() if name in _TAKEN}
    model, provider, _, _ = litellm.get_llm_provider(parameters["model"])
    supported = litellm.get_supported_openai_params(model, provider)
    for name in _NEEDED & parameters.keys():
        if supported is not None and name not in supported:
            raise BadRequestError(f"{provider} does not take {name}", model, provider)
    return parameters


def _part(chunk: Any) -> dict[str, Any]:
    """One chunk as OpenAI words it, without what LiteLLM adds to it."""
    part = _head(chunk, "chat.completion.chunk")
    part["choices"] = [
        {"index": choice.index, "delta": _turn(choice.delta), "finish_reason": choice.finish_reason or None}
        for choice in chunk.choices
    ]
    return part


def _whole(answer: Any) -> dict[str, Any]:
    """A plain answer as OpenAI words it."""
    whole = _head(answer, "chat.completion")
    whole["choices"] = [
        {
            "index": choice.index,
            "message": {"content": None, **_turn(choice.message)},
            "finish_reason": choice.finish_reason,
        }
        for choice in answer.choices
    ]
    return whole


def _head(answer: Any, object_: str) -> dict[str, Any]:
    head = {"id": answer.id, "object": object_, "created": answer.created, "model": answer.model}
    usage = getattr(answer, "usage", None)
    if usage is not None:
        head["usage"] = usage.model_dump(exclude_none=True, include=_USAGE_FIELDS)
    return head


def _turn(turn: Any) -> dict[str, Any]:
    fields: dict[str, Any] = turn.model_dump(exclude_none=True, include=_TURN_FIELDS)
    return fields


def _refusal(error: Exception, key: str | None) -> Response:
    status, envelope = _envelope(error, key)
    headers = {}
    if (retry_after := _retry_after(error)) is not None:
        headers["retry-after"] = retry_after
    return Response(msgspec.json.encode(envelope), status, headers, media_type="application/json")


def _envelope(error: Exception, key: str | None) -> tuple[int, dict[str, Any]]:
    """The HTTP status that ``error`` stands for, and OpenAI's error object."""
    if isinstance(error, MidStreamFallbackError) and error.original_exception is not None:
        error = error.original_exception
    if isinstance(error, Invented):
        status, message = 502, "the provider's stream ended without a finish_reason"
    else:
        status = getattr(error, "status_code", 502)
        message = f"{type(error).__name__}: {getattr(error, 'message', None) or error}"
        if not isinstance(status, int) or not 400 <= status <= 599:
            status = 502
        if isinstance(error, Timeout):
            status = 504
    # LiteLLM adds a traceback of its own where it knows no better.
    message = message.partition("\nTraceback (most recent call last)")[0]
    if key:
        message = message.replace(key, "***")
    type_ = _ERROR_TYPES.get(status, "api_error")
    return status, {"error": {"message": message[:2000], "type": type_, "param": None, "code": status}}


def _retry_after(error: Exception) -> str | None:
    # LiteLLM notes the provider's headers there when it maps an error; its own exceptions have made-up responses.
    headers = getattr(error, "litellm_response_headers", None)
    value, date = (headers.get(name) if headers else None for name in ("retry-after", "date"))
    if not isinstance(value, str):
        return None
    wait_s = retry_after_s(value, date if isinstance(date, str) else "", now_s=wall_s())
    return None if wait_s is None or not math.isfinite(wait_s) else f"{math.ceil(wait_s)}"


async def _health(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


def make_app(beat: Callable[[], object]) -> Starlette:
    """The server's application. ``beat`` is called each second while its event loop turns."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        tasks = TaskSet()
        tasks.spawn(_heart(beat), name="heart")
        yield
        await tasks.close()

    routes = [
        Route("/health", _health, methods=["GET"]),
        Route("/v1/chat/completions", ChatEndpoint(), methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _heart(beat: Callable[[], object]) -> None:
    while True:
        beat()
        await asyncio.sleep(HEARTBEAT_S)


def _die_with_the_gateway() -> None:
    # In a thread and by SIGKILL, so that not even an event loop that hangs outlives the gateway. There is nothing to
    # put in order: whoever waited for an answer is gone.
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Serve on the listening socket ``--fd`` until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fd", type=int, required=True, help="a listening socket to serve on")
    listener = socket.socket(fileno=parser.parse_args().fd)
    threading.Thread(target=_die_with_the_gateway, daemon=True, name="gateway-watch").start()
    # Standard output is for heartbeats only: what a library prints goes to the log.
    beats = os.dup(1)
    os.dup2(2, 1)
    os.set_blocking(beats, False)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    litellm_repairs.install()
    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True
    app = make_app(lambda: os.write(beats, b"."))
    config = uvicorn.Config(app, access_log=False, log_config=None, timeout_keep_alive=60)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
