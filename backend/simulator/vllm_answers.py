"""Answers in the shape that vLLM 0.32 gives them (``vllm/entrypoints/openai/*/serving.py``), byte for byte its JSON."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import msgspec

from backend.simulator.answer import Dialect, Generated, Otherwise
from backend.simulator.ask import Ask
from backend.simulator.engine import Flight
from backend.simulator.numbering import Numbered, numbered_arguments, numbered_text
from backend.simulator.vllm_refusals import BUSY

FINGERPRINT = "vllm-0.32.0-5117f5a9"
DONE = b"data: [DONE]\n\n"
TYPES = {
    400: "BadRequestError",
    401: "Unauthorized",
    404: "NotFoundError",
    413: "Request Entity Too Large",
    422: "UnprocessableEntityError",
    429: "Too Many Requests",
    500: "InternalServerError",
    503: "Service Unavailable",
}
MESSAGES = {
    404: "The model does not exist.",
    500: "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    503: BUSY,
}


class Vllm(Dialect):
    """vLLM's envelope: the code is the status, whatever went wrong."""

    def error_body(
        self,
        status: int,
        message: str | None = None,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> bytes:
        """``code`` is not used: vLLM's is the status."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": message if message is not None else MESSAGES.get(status, "Simulated error."),
                    "type": type or TYPES.get(status, "Error"),
                    "param": param,
                    "code": status,
                }
            }
        )

    def error_event(self, status: int, message: str | None) -> bytes:
        """As the generator of a broken stream ends: the envelope as an event."""
        return b"data: %b\n\n" % self.error_body(status, message)


class VllmAnswer(Generated):
    """What both endpoints have in common."""

    object_name: str
    id_prefix: str

    def __init__(
        self, dialect: Vllm, flight: Flight, ask: Ask, said: Numbered, *, name: str, request_id: str, created: int
    ) -> None:
        super().__init__(dialect, flight, streamed=ask.streamed)
        self.ask = ask
        self.said = said
        self.model = name
        self.id = f"{self.id_prefix}-{request_id}"
        self.created = created
        # What all events of one stream begin with.
        self._front = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            msgspec.json.encode(self.id),
            self.object_name.encode(),
            created,
            msgspec.json.encode(name),
        )

    @property
    def choices(self) -> range:
        """The indexes of all choices."""
        return range(self.ask.n * self.ask.prompts)

    def usage(self, tokens: int | None = None) -> dict[str, Any]:
        """Over all choices; ``tokens``: of one choice."""
        completion = (len(self.said.tokens) if tokens is None else tokens) * len(self.choices)
        prompt = self.ask.prompt_tokens
        return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}

    def say_otherwise(self, how: Otherwise) -> None:
        """As prose where a tool was to be called, with another tool, or with more or fewer numbers."""
        length = len(self.said.tokens) + {"longer": 3, "shorter": -3}.get(how, 0)
        if how == "prose":
            self.ask.tool = None
        elif how == "tool" and self.ask.tool is not None:
            self.ask.tool += "_2"
        numbered = numbered_text if self.ask.tool is None else numbered_arguments
        self.said = numbered(self.model, length, None)

    def done(self) -> bytes:
        """OpenAI's terminator."""
        return DONE

    def closing(self, finish: str) -> list[bytes]:
        """A finish for each choice, the usage if asked for, the terminator."""
        return [*(self.finish_event(index, finish) for index in self.choices), *self.ending()]

    def ending(self) -> list[bytes]:
        """The usage if asked for, the terminator."""
        if not self.ask.include_usage:
            return [DONE]
        usage = b'],"usage":%b,"system_fingerprint":"%b"}\n\n' % (
            msgspec.json.encode(self.usage()),
            FINGERPRINT.encode(),
        )
        return [self._front + usage, DONE]

    @abstractmethod
    def finish_event(self, index: int, finish: str, last: bytes | None = None) -> bytes:
        """The last event of one choice, with its last token if there is one left."""

    def _fingerprint(self) -> bytes:
        """Only on the last chunk of a stream, which is the usage if there is one."""
        return b"" if self.ask.include_usage else b',"system_fingerprint":"%b"' % FINGERPRINT.encode()

    def bursts(self) -> Iterator[list[bytes]]:
        """One token of every choice at each step; a last token at the limit shares its event with the finish."""
        pieces, finish, choices = self.said.escaped, self.said.finish, self.choices
        opening = self.opening()
        *most, last = pieces
        if finish == "stop":
            most = list(pieces)
        for number, piece in enumerate(most):
            burst = [event for index in choices for event in self.pieces(index, number, piece)]
            yield [*opening, *burst] if not number else burst
        ends = [self.finish_event(index, finish, None if finish == "stop" else last) for index in choices]
        yield [*(opening if not most else ()), *ends, *self.ending()]

    @abstractmethod
    def pieces(self, index: int, number: int, text: bytes) -> list[bytes]:
        """The events of the ``number``-th token of choice ``index``."""


class VllmChat(VllmAnswer):
    """``chat.completion`` and its chunks."""

    object_name = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def opening(self) -> list[bytes]:
        """The role of each choice."""
        back = b'}],"prompt_token_ids":null,"prompt_text":null}\n\n'
        delta = b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null'
        roles = [self._front + delta % index + back for index in self.choices]
        if not self.ask.echoed:
            return roles
        echo = b'{"content":%b}' % msgspec.json.encode(self.ask.echoed)
        return [*roles, *(self._delta(index, echo) for index in self.choices)]

    def content(self, text: bytes) -> bytes:
        """A content delta of the first choice."""
        return self._delta(0, b'{"content":"%b"}' % text)

    def pieces(self, index: int, number: int, text: bytes) -> list[bytes]:
        """A content delta; of a tool call first its name alone (as the llama3_json parser has it), then arguments."""
        if self.ask.tool is None:
            return [self._delta(index, b'{"content":"%b"}' % text)]
        arguments = self._delta(index, b'{"tool_calls":[{"index":0,"function":{"arguments":"%b"}}]}' % text)
        return [arguments] if number else [self._delta(index, self._call(index, b"")), arguments]

    def finish_event(self, index: int, finish: str, last: bytes | None = None) -> bytes:
        """``tool_calls`` for a call that the model chose, ``stop`` for one that was named, as OpenAI has it."""
        if self.ask.tool is None:
            delta = b'{"content":"%b"}' % last if last is not None else b"{}"
        else:
            delta = b"{}" if last is None else self._last_arguments(index, last)
        ending = b'%b,"logprobs":null,"finish_reason":"%b","stop_reason":null,"token_ids":null}]%b}\n\n'
        ended = ending % (delta, self._reason(finish).encode(), self._fingerprint())
        return b'%b{"index":%d,"delta":%b' % (self._front, index, ended)

    def body(self, *, finish: str | None = None) -> bytes:
        """A ``chat.completion``."""
        tokens = self.said.tokens
        if finish is not None:
            tokens = tokens[: len(tokens) // 2]
        text = "".join(tokens)
        reason = self._reason(finish or self.said.finish)
        return msgspec.json.encode(
            {
                "id": self.id,
                "object": "chat.completion",
                "created": self.created,
                "model": self.model,
                "choices": [
                    {
                        "index": index,
                        "message": self._message(index, text),
                        "logprobs": None,
                        "finish_reason": reason,
                        "stop_reason": None,
                        "token_ids": None,
                        "routed_experts": None,
                    }
                    for index in self.choices
                ],
                "service_tier": None,
                "system_fingerprint": FINGERPRINT,
                "usage": {**self.usage(len(tokens)), "prompt_tokens_details": None, "completion_tokens_details": None},
                "prompt_logprobs": None,
                "prompt_token_ids": None,
                "prompt_text": None,
                "kv_transfer_params": None,
                "ec_transfer_params": None,
                "metrics": None,
            }
        )

    def _message(self, index: int, text: str) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.ask.echoed + text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
        }
        if self.ask.tool is not None:
            message["content"] = self.ask.echoed or ("" if self.ask.tool_named or self.ask.tool_required else None)
            call = {"name": self.ask.tool, "arguments": text}
            message["tool_calls"] = [{"id": self._call_id(index), "type": "function", "function": call}]
        return {**message, "reasoning": None}

    def _delta(self, index: int, delta: bytes) -> bytes:
        back = b',"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
        return b'%b{"index":%d,"delta":%b%b' % (self._front, index, delta, back)

    def _call(self, index: int, arguments: bytes) -> bytes:
        function = b'"name":%b%b' % (msgspec.json.encode(self.ask.tool), arguments)
        identity = self._call_id(index).encode()
        return b'{"tool_calls":[{"id":"%b","type":"function","index":0,"function":{%b}}]}' % (identity, function)

    def _last_arguments(self, index: int, text: bytes) -> bytes:
        if len(self.said.tokens) == 1:
            return self._call(index, b',"arguments":"%b"' % text)
        return b'{"tool_calls":[{"index":0,"function":{"arguments":"%b"}}]}' % text

    def _call_id(self, index: int) -> str:
        return f"chatcmpl-tool-{self.id.removeprefix('chatcmpl-')}{index or ''}"

    def _reason(self, finish: str) -> str:
        called = self.ask.tool is not None and not self.ask.tool_named
        return "tool_calls" if called and finish == "stop" else finish


class VllmCompletion(VllmAnswer):
    """``text_completion``."""

    object_name = "text_completion"
    id_prefix = "cmpl"

    def content(self, text: bytes) -> bytes:
        """A piece of text of the first choice."""
        return self.pieces(0, 0, text)[0]

    def pieces(self, index: int, number: int, text: bytes) -> list[bytes]:
        """One piece of text."""
        back = (
            b'"logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n'
        )
        return [b'%b{"index":%d,"text":"%b",%b' % (self._front, index, text, back)]

    def finish_event(self, index: int, finish: str, last: bytes | None = None) -> bytes:
        """The last piece of one choice."""
        back = b'"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]%b}\n\n' % self._fingerprint()
        piece = b'{"index":%d,"text":"%b","logprobs":null,"finish_reason":"%b",' % (index, last or b"", finish.encode())
        return self._front + piece + back

    def body(self, *, finish: str | None = None) -> bytes:
        """A ``text_completion``."""
        tokens = self.said.tokens
        if finish is not None:
            tokens = tokens[: len(tokens) // 2]
        return msgspec.json.encode(
            {
                "id": self.id,
                "object": "text_completion",
                "created": self.created,
                "model": self.model,
                "choices": [
                    {
                        "index": index,
                        "text": "".join(tokens),
                        "logprobs": None,
                        "finish_reason": finish or self.said.finish,
                        "stop_reason": None,
                        "token_ids": None,
                        "prompt_logprobs": None,
                        "prompt_token_ids": None,
                        "routed_experts": None,
                    }
                    for index in self.choices
                ],
                "service_tier": None,
                "system_fingerprint": FINGERPRINT,
                "usage": {**self.usage(len(tokens)), "prompt_tokens_details": None, "completion_tokens_details": None},
                "kv_transfer_params": None,
                "ec_transfer_params": None,
                "metrics": None,
            }
        )
