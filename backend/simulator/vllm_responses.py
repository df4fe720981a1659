"""`/v1/responses` as vLLM 0.32 serves it (``vllm/entrypoints/openai/responses``): what it takes, and its answers.

Of an engine's abort it says `completed`, whole and streamed, as vLLM does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from backend.simulator.answer import Dialect, Generated
from backend.simulator.ask import Ask, count_tokens
from backend.simulator.engine import Flight
from backend.simulator.numbering import Numbered
from backend.simulator.vllm_refusals import refused, undecodable


class _Tool(msgspec.Struct):
    type: str
    name: str = ""


class _TextFormat(msgspec.Struct):
    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class _Text(msgspec.Struct):
    format: _TextFormat | None = None
    verbosity: str | None = None


class _Request(msgspec.Struct):
    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[_Tool] = []
    tool_choice: Any = "auto"
    text: _Text | None = None
    request_id: str | None = None


_decoder = msgspec.json.Decoder(_Request, strict=False)


def read_response_request(body: bytes) -> Ask:
    """Understand a request. Raises RequestError with status 400."""
    try:
        request = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise undecodable(body, error) from None
    items = [request.input] if isinstance(request.input, str) else [_content(item) for item in request.input]
    tokens = sum(count_tokens(item) + 4 for item in items) + count_tokens(request.instructions)
    ask = Ask(
        request.model,
        bool(request.stream),
        True,
        1,
        request.max_output_tokens,
        1,
        tokens,
        request.request_id,
        temperature=request.temperature,
        top_p=request.top_p,
        limited_by="max_output_tokens",
    )
    ask.json = _wants_json(request.text)
    choice = request.tool_choice
    if choice == "auto" and _answers_tool(request.input):
        return ask
    if request.tools and choice != "none":
        named = choice.get("name") if isinstance(choice, dict) else None
        if named is not None and all(tool.name != named for tool in request.tools):
            raise refused("Tool choice 'function' not found in 'tools' parameter.", param="tool_choice")
        ask.tool = named or request.tools[0].name
    elif not request.tools and choice == "required":
        raise refused("Tool choice 'required' must be specified with 'tools' parameter.", param="tool_choice")
    return ask


def _wants_json(text: _Text | None) -> bool:
    """As ``extract_structured_outputs`` has it: a schema that is not there binds nothing."""
    if text is None or text.format is None:
        return False
    return text.format.type == "json_object" or (text.format.type == "json_schema" and text.format.schema is not None)


def _answers_tool(given: str | list[dict[str, Any]]) -> bool:
    """Whether a tool was called and has answered, and the model is now free to say something."""
    return isinstance(given, list) and bool(given) and given[-1].get("type") == "function_call_output"


def _content(item: dict[str, Any]) -> Any:
    return item.get("content") or item.get("output") or item.get("arguments")


_TOOL = dict.fromkeys(
    ("strict", "allowed_callers", "async", "defer_loading", "description", "output_schema", "parameters")
)
"""What a response says of each of its tools, where the request did not."""


def _shown(text: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a response says of the text that was wanted: with all fields that it may have."""
    if text is None:
        return None
    wanted = text.get("format")
    if wanted is not None and wanted.get("type") == "json_schema":
        wanted = {"description": None, "strict": None} | wanted
    return {"format": wanted, "verbosity": text.get("verbosity")}


class VllmResponse(Generated):
    """A ``response`` and its events."""

    def __init__(
        self,
        dialect: Dialect,
        flight: Flight,
        ask: Ask,
        said: Numbered,
        *,
        fields: dict[str, Any],
        name: str,
        request_id: str,
        created: int,
    ) -> None:
        super().__init__(dialect, flight, streamed=ask.streamed)
        self.ask = ask
        self.said = said
        self.model = name
        self._fields = fields
        self._request_id = request_id
        self._created = created
        self._number = 0
        self._spoken = ""

    def opening(self) -> list[bytes]:
        """The response begins, in two events."""
        response = self._response("in_progress", [], None)
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def content(self, text: bytes) -> bytes:
        """A piece of text, outside of the numbering: a fault's."""
        number = self._number
        event = self._delta("\0").replace(b"\\u0000", text)
        self._number = number
        return event

    def closing(self, finish: str) -> list[bytes]:
        """The item ends, the response ends."""
        kind, place = ("function_call_arguments", {}) if self.ask.tool else ("output_text", {"content_index": 0})
        whole: dict[str, Any] = {"text": self._spoken, "logprobs": []}
        if self.ask.tool is not None:
            whole = {"arguments": self._spoken, "name": self.ask.tool}
        item = self._item("completed", self._spoken)
        events = [self._event(f"response.{kind}.done", **self._place, **place, **whole)]
        if self.ask.tool is None:
            part = item["content"][0] if item["content"] else self._part("")
            events.append(self._event("response.content_part.done", **self._place, **place, part=part))
        events.append(self._event("response.output_item.done", output_index=0, item=item))
        count = self._spoken_tokens()
        return [*events, self._event("response.completed", response=self._whole(finish, self._spoken, count))]

    def bursts(self) -> Iterator[list[bytes]]:
        """One token at each step; a last token at the limit comes with the end."""
        burst = [*self.opening(), *self._item_begins()]
        for number, token in enumerate(self.said.tokens):
            if number:
                yield burst
                burst = []
            self._spoken += token
            burst.append(self._delta(token))
        if self.said.finish == "stop":
            yield burst
            burst = []
        yield [*burst, *self.closing(self.said.finish)]

    def body(self, *, finish: str | None = None) -> bytes:
        """A ``response``."""
        tokens = self.said.tokens if finish is None else self.said.tokens[: len(self.said.tokens) // 2]
        return msgspec.json.encode(self._whole(finish or self.said.finish, "".join(tokens), len(tokens)))

    def _item_begins(self) -> list[bytes]:
        events = [self._event("response.output_item.added", output_index=0, item=self._item("in_progress", ""))]
        if self.ask.tool is None:
            part = {**self._part(""), "logprobs": []}
            events.append(self._event("response.content_part.added", **self._place, content_index=0, part=part))
        return events

    def _delta(self, text: str) -> bytes:
        if self.ask.tool is not None:
            return self._event("response.function_call_arguments.delta", **self._place, delta=text)
        return self._event("response.output_text.delta", **self._place, content_index=0, delta=text, logprobs=[])

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": 0}

    @property
    def _item_id(self) -> str:
        return f"{'msg' if self.ask.tool is None else 'fc'}_{self._request_id}"

    def _spoken_tokens(self) -> int:
        return len(self.said.tokens) if self._spoken == self.said.text else len(self._spoken.split(" "))

    def _part(self, text: str) -> dict[str, Any]:
        return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}

    def _item(self, status: str, text: str) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._item_id, "status": status}
        if self.ask.tool is not None:
            call = {"arguments": text, "call_id": f"chatcmpl-tool-{self._request_id}", "name": self.ask.tool}
            return item | call | {"type": "function_call", "namespace": None, "caller": None, "async": None}
        content = [self._part(text)] if text else []
        return item | {"content": content, "role": "assistant", "type": "message", "phase": None}

    def _whole(self, finish: str, text: str, tokens: int) -> dict[str, Any]:
        output = [self._item("completed", text)] if text else []
        response = self._response("incomplete" if finish == "length" else "completed", output, tokens)
        if finish == "length":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        return response

    def _response(self, status: str, output: list[dict[str, Any]], tokens: int | None) -> dict[str, Any]:
        fields, prompt = self._fields, self.ask.prompt_tokens
        usage = None
        if tokens is not None:
            usage = {
                "input_tokens": prompt,
                "input_tokens_details": {
                    "cache_write_tokens": 0,
                    "cached_tokens": 0,
                    "input_tokens_per_turn": [],
                    "cached_tokens_per_turn": [],
                },
                "output_tokens": tokens,
                "output_tokens_details": {
                    "reasoning_tokens": 0,
                    "tool_output_tokens": 0,
                    "output_tokens_per_turn": [],
                    "tool_output_tokens_per_turn": [],
                },
                "total_tokens": prompt + tokens,
            }
        return {
            "id": f"resp_{self._request_id}",
            "created_at": self._created,
            "incomplete_details": None,
            "instructions": fields.get("instructions"),
            "metadata": fields.get("metadata"),
            "model": self.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0 if fields.get("temperature") is None else float(fields["temperature"]),
            "tool_choice": fields.get("tool_choice") or ("auto" if fields.get("tools") else "none"),
            "tools": [_TOOL | tool for tool in fields.get("tools") or ()],
            "top_p": 1.0,
            "background": False,
            "max_output_tokens": self.ask.limit,
            "max_tool_calls": None,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": _shown(fields.get("text")),
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": usage,
            "user": None,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def _event(self, type: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        data = msgspec.json.encode({**fields, "sequence_number": number, "type": type})
        return b"event: %b\ndata: %b\n\n" % (type.encode(), data)
