"""Simulated targets that tell their tokens in pieces, so that an hour of a fleet takes seconds.

First tokens and ends come when they would come token by token, and nothing else of a healthy answer decides anything.
"""

from __future__ import annotations

from typing import Final

from backend.simulator.box import Box
from backend.simulator.hosted import HostedOpenAI
from backend.simulator.openai_answers import OpenAIChat
from backend.simulator.steps import Do, Event, Head, Script, Wait
from backend.simulator.vllm_answers import VllmChat

PIECE_TOKENS: Final = 32
"""Tokens that are told together after the first one: at a crowded box's 60 ms a token in 2 s, while the gateway takes
a stream for stalled after 10 s by default."""


class CoarseChat(VllmChat):
    """A box's answer."""

    def script(self) -> Script:
        """The first token, then a piece at a time, then the end."""
        if not self.streamed or self.ask.tool is not None or len(self.choices) != 1:
            yield from super().script()
            return
        flight, tokens = self.flight, self.said.escaped
        yield Head(self.status, self.content_type, None, self.extra)
        *told, last = range(len(tokens))
        for number in told[::PIECE_TOKENS]:
            yield from flight.until_token(number)
            if flight.aborted:
                break
            if not number:
                yield from map(Event, self.opening())
            yield Event(self.content(tokens[number]))
        if not flight.aborted:
            yield from flight.until_token(last + (self.said.finish == "stop"))
        if flight.aborted:
            yield from map(Event, self.closing("abort"))
        else:
            if not told:
                yield from map(Event, self.opening())
            yield Event(self.finish_event(0, self.said.finish, tokens[last]))
            yield from map(Event, self.ending())
            flight.finished()
        yield Do.END


class CoarseOpenAI(OpenAIChat):
    """A provider's answer."""

    def script(self) -> Script:
        """The first token, then a piece at a time, then the end."""
        if not self.streamed or self.ask.tool is not None or self.ask.n != 1:
            yield from super().script()
            return
        flight, tokens = self.flight, self.said.escaped
        yield Head(self.status, self.content_type, None, self.extra)
        yield from flight.until_token(0)
        yield from map(Event, self.opening())
        yield Event(self.content(tokens[0]))
        for begin in range(1, len(tokens), PIECE_TOKENS):
            piece = tokens[begin : begin + PIECE_TOKENS]
            yield Wait(flight.pace.itl_s * len(piece))
            yield Event(self.content(piece[-1]))
        yield from flight.until_token(len(tokens))
        flight.finished()
        yield from map(Event, self.closing(self.said.finish))
        yield Do.END


class CoarseBox(Box):
    """A vLLM box of a plan."""

    chat_answer = CoarseChat


class CoarseProvider(HostedOpenAI):
    """A hosted provider of a plan."""

    chat_answer = CoarseOpenAI
