"""What a customer's requests are reckoned to take in tokens before their answer says so. Pure."""

from __future__ import annotations

TOKENS_A_BYTE = 0.25
"""Of a request's body, until some answers have said better: English prose in JSON."""

ANSWER_TOKENS = 256
"""Of an answer, likewise."""

WEIGHT = 0.1
"""Of the newest answer."""


class Habit:
    """Learned from answers. `max_tokens` bounds what is reckoned and is not taken for what will be used: who writes
    4096 and is answered in 100 is not to be turned away for the rest."""

    __slots__ = ("_answer", "_per_byte")

    def __init__(self) -> None:
        self._per_byte = TOKENS_A_BYTE
        self._answer = float(ANSWER_TOKENS)

    def estimate(self, body_bytes: int, choices: int, max_tokens: object) -> int:
        """Tokens of prompt and answer; each of ``choices`` has at most ``max_tokens``, if that is a number."""
        answer = min(self._answer, max_tokens) if isinstance(max_tokens, int) and max_tokens > 0 else self._answer
        return self.prompt(body_bytes) + round(choices * answer)

    def prompt(self, body_bytes: int) -> int:
        """Tokens of the prompt."""
        return max(1, round(body_bytes * self._per_byte))

    def learn(self, body_bytes: int, choices: int, prompt_tokens: int, completion_tokens: int) -> None:
        """An answer said what it took."""
        if body_bytes > 0:
            self._per_byte += WEIGHT * (prompt_tokens / body_bytes - self._per_byte)
        self._answer += WEIGHT * (completion_tokens / max(1, choices) - self._answer)
