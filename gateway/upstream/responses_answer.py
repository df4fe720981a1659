"""A provider's chat answer in the shape of the Responses API, plain or as its events.

The events and their order are those of vLLM 0.32 (``openai/responses/streaming_events.py``), which are OpenAI's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.errors import ProtocolError
from gateway.upstream.chat_wire import Call, Turn, Usage, read_said, reasoning_of, turn_of

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": None,
    "parallel_tool_calls": True,
    "reasoning": None,
    "service_tier": "auto",
    "temperature": 1.0,
    "text": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": None,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, with what stands there by default."""

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finishes that leave an answer incomplete, and why, in this API's words."""


class ResponsesAnswer:
    """Words one answer: a whole chat completion through :meth:`body`; or a stream's chunks, in order, through
    :meth:`events`, and its end through :meth:`end`. ``fields`` is what was asked, ``created_s`` Unix time.
    """

    def __init__(self, fields: Mapping[str, Any], *, request_id: str, created_s: int) -> None:
        self._fields = fields
        self._id = request_id
        self._created_s = created_s
        self._model = ""
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._output: list[dict[str, Any]] = []
        self._number = 0
        self._item: _Item | None = None
        self._begun = False

    def body(self, data: bytes) -> bytes:
        """A plain answer. Raises :class:`ProtocolError`: ``data`` is no chat completion."""
        self.events(data)
        self._close()
        return msgspec.json.encode(self._whole())

    def events(self, data: bytes) -> bytes:
        """The events that one chunk stands for. Raises :class:`ProtocolError`: it is none, or out of order."""
        said = read_said(data)
        self._model = self._model or said.model
        self._usage = said.usage or self._usage
        out: list[bytes] = []
        if not self._begun:
            self._begun = True
            response = self._response("in_progress")
            out += [self._event("response.created", response=response)]
            out += [self._event("response.in_progress", response=response)]
        for choice in said.choices[:1]:
            self._turn(turn_of(choice), out)
            self._finish = choice.finish_reason or self._finish
        return b"".join(out)

    def end(self) -> bytes:
        """The events behind the last chunk."""
        out = self._close()
        whole = self._whole()
        return b"".join([*out, self._event(f"response.{whole['status']}", response=whole)])

    def _turn(self, turn: Turn, out: list[bytes]) -> None:
        if text := reasoning_of(turn):
            self._say("reasoning", text, out)
        if turn.content:
            self._say("text", turn.content, out)
        if turn.refusal:
            self._say("refusal", turn.refusal, out)
        for place, call in enumerate(turn.tool_calls or ()):
            self._call(call, call.at(place), out)

    def _say(self, kind: str, text: str, out: list[bytes]) -> None:
        item = self._item
        if item is None or item.kind != kind:
            item = self._open(_Item(kind, len(self._output), self._id), out)
        item.text += text
        out.append(self._event(_DELTAS[kind], **item.place, delta=text, **item.logprobs))

    def _call(self, call: Call, index: int, out: list[bytes]) -> None:
        item = self._item
        function = call.function
        if item is None or item.kind != "call" or item.call_index != index:
            if function is None or not function.name:
                raise ProtocolError("a tool call without a name")
            item = _Item("call", len(self._output) + (self._item is not None), self._id)
            item.call_index, item.name = index, function.name
            item.call_id = call.id or f"call_{self._id}{item.output_index}"
            self._open(item, out)
        if function is not None and function.arguments:
            item.text += function.arguments
            out.append(self._event(_DELTAS["call"], **item.place, delta=function.arguments))

    def _open(self, item: _Item, out: list[bytes]) -> _Item:
        out += self._close()
        item.output_index = len(self._output)
        self._item = item
        out.append(
            self._event("response.output_item.added", output_index=item.output_index, item=item.object("in_progress"))
        )
        if item.kind != "call":
            out.append(self._event("response.content_part.added", **item.place, part=item.part("")))
        return item

    def _close(self) -> list[bytes]:
        item, self._item = self._item, None
        if item is None:
            return []
        done = item.object("completed")
        self._output.append(done)
        out = [self._event(_DELTAS[item.kind].replace(".delta", ".done"), **item.place, **item.whole)]
        if item.kind != "call":
            out.append(self._event("response.content_part.done", **item.place, part=item.part(item.text)))
        return [*out, self._event("response.output_item.done", output_index=item.output_index, item=done)]

    def _whole(self) -> dict[str, Any]:
        why = _INCOMPLETE.get(self._finish or "")
        response = self._response("completed" if why is None else "incomplete")
        if why is not None:
            response["incomplete_details"] = {"reason": why}
        usage = self._usage
        if usage is not None:
            response["usage"] = {
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.completion,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.prompt + usage.completion,
            }
        return response

    def _response(self, status: str) -> dict[str, Any]:
        fields = self._fields
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created_s,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self._model,
            "output": list(self._output),
            "previous_response_id": None,
            "usage": None,
        } | {name: usual if fields.get(name) is None else fields[name] for name, usual in _ECHOED.items()}

    def _event(self, type: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        data = msgspec.json.encode({"type": type, "sequence_number": number, **fields})
        return b"event: %b\ndata: %b\n\n" % (type.encode(), data)


_DELTAS = {
    "text": "response.output_text.delta",
    "refusal": "response.refusal.delta",
    "reasoning": "response.reasoning_text.delta",
    "call": "response.function_call_arguments.delta",
}


class _Item:
    """One item of the output while it is being said. ``kind``: one of :data:`_DELTAS`."""

    def __init__(self, kind: str, output_index: int, id: str) -> None:
        self.kind = kind
        self.output_index = output_index
        self._id = id
        self.text = ""
        self.name = ""
        self.call_id = ""
        self.call_index = 0

    @property
    def id(self) -> str:
        """Its own, unlike any other of the answer."""
        prefix = {"call": "fc", "reasoning": "rs"}.get(self.kind, "msg")
        return f"{prefix}_{self._id}{self.output_index}"

    @property
    def place(self) -> dict[str, Any]:
        """Where in the answer an event belongs."""
        place: dict[str, Any] = {"item_id": self.id, "output_index": self.output_index}
        return place if self.kind == "call" else place | {"content_index": 0}

    @property
    def logprobs(self) -> dict[str, Any]:
        """Of which text's events have a list."""
        return {"logprobs": []} if self.kind == "text" else {}

    @property
    def whole(self) -> dict[str, Any]:
        """What the event says that ends it."""
        if self.kind == "call":
            return {"arguments": self.text, "name": self.name}
        return {"refusal": self.text} if self.kind == "refusal" else {"text": self.text, **self.logprobs}

    def part(self, text: str) -> dict[str, Any]:
        """Its one part of content."""
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def object(self, status: str) -> dict[str, Any]:
        """It as a member of ``output``."""
        item: dict[str, Any] = {"id": self.id, "status": status}
        if self.kind == "call":
            return {"type": "function_call", **item, "call_id": self.call_id, "name": self.name, "arguments": self.text}
        content = [] if status == "in_progress" else [self.part(self.text)]
        if self.kind == "reasoning":
            return {"type": "reasoning", **item, "summary": [], "content": content}
        return {"type": "message", **item, "role": "assistant", "content": content}
