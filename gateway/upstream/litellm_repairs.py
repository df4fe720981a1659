"""Where LiteLLM makes up a part of a stream that the provider never sent, and how the worker keeps it from that.

What LiteLLM 1.106 does with a stream that breaks off, and what is done about each:

- Its wrapper ends every stream with a finish, ``"stop"`` where there was none. It keeps what the provider sent in
  ``received_finish_reason`` and ``intermittent_finish_reason``: :func:`finish_is_real` looks there.
- Its parser for Gemini and Vertex AI gives each chunk without a finish a ``"stop"``, so that those say nothing.
- Its parser for most OpenAI-compatible APIs (Mistral, Groq, DeepSeek, …) takes ``[DONE]`` for a finish, also within
  the text of an answer, and passes over an event that is not JSON, which leaves a gap.

The last two have no setting. They are replaced in the worker's process, and ``tests/providers`` holds the outcome
against the real library, so that a release that moves them is noticed before it is let in.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any

from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
from litellm.llms.base_llm.base_model_iterator import BaseModelResponseIterator
from litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini import VertexGeminiConfig
from litellm.types.utils import GenericStreamingChunk

_gemini_finished: ContextVar[list[str] | None] = ContextVar("gemini_finished", default=None)
"""Finishes that Gemini sent in the stream that the current task reads."""

_map_gemini_finish = VertexGeminiConfig._check_finish_reason
_parse_line = BaseModelResponseIterator._handle_string_chunk


def install() -> None:
    """Replace the two parsers, for this process."""
    VertexGeminiConfig._check_finish_reason = staticmethod(_gemini_finish)  # type: ignore[method-assign,assignment]
    BaseModelResponseIterator._handle_string_chunk = _line  # type: ignore[method-assign,assignment]


def begin_stream() -> None:
    """Note that the current task is about to read one stream."""
    _gemini_finished.set([])


def finish_is_real(stream: CustomStreamWrapper) -> bool:
    """Whether the provider itself has ended the answer that ``stream`` has just given a finish to."""
    return bool(stream.received_finish_reason or stream.intermittent_finish_reason or _gemini_finished.get())


def _gemini_finish(message: Any, finish: str | None) -> Any:
    if not finish:
        return None
    if (sent := _gemini_finished.get()) is not None:
        # Kept beside the wrapper's record, which a chunk of metadata after the finish wipes.
        sent.append(finish)
    return _map_gemini_finish(message, finish)


def _line(iterator: BaseModelResponseIterator, str_line: str) -> Any:
    payload = str_line[5:].strip() if str_line.startswith("data:") else ""
    if not payload:
        return _parse_line(iterator, str_line)
    if payload == "[DONE]":
        return GenericStreamingChunk(text="", is_finished=False, finish_reason="", usage=None, index=0, tool_use=None)
    return iterator.chunk_parser(json.loads(payload))
