"""The tokenizer: a token per word of the house, two digits a token, bytes for all else, and a chat template.

Every word and every run of punctuation is one token, without its space, so that a word in a wish and the same word in
JSON are the same token and can be copied. Unknown words come apart into bytes. ``<|python_tag|>`` is what vLLM's
``llama3_json`` tool parser looks up.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast  # type: ignore[import-not-found]

from backend.tiny_agents.examples import spellings, training
from backend.tiny_agents.houses import GENERIC, HOUSES

LONGEST_CONTEXT: Final = 1024

BEGIN: Final = "<|begin_of_text|>"
END: Final = "<|end_of_text|>"
TURN: Final = "<|eot_id|>"
TOOLS: Final = "<|tools|>"
"""Stands for the list of tools, which would make every prompt long: a house's agent knows its tools from training."""
ROLES: Final = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
SPECIAL: Final = (BEGIN, END, TURN, TOOLS, *ROLES, "<|python_tag|>")

_PIECES: Final = r"[0-9]{1,2}|[A-Za-z_]+|\s|[^A-Za-z_0-9\s]+"
_SAMPLE: Final = 1500  # of each house: in so many, every word of it occurs

# The last message's text is rendered as it stands, so that it can be continued.
CHAT_TEMPLATE: Final = """\
{{- bos_token }}
{%- if tools %}{{- '<|tools|>' }}{% endif %}
{%- for message in messages %}
{{- '<|' + (message.role if message.role in ['user', 'assistant', 'tool'] else 'system') + '|>' }}
{%- if message.content is string %}{{ message.content }}
{%- elif message.content %}
{%- for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}
{%- endif %}
{%- if message.tool_calls is defined and message.tool_calls %}
{%- for call in message.tool_calls %}
{{- '{"name":' + call.function.name|tojson + ',"parameters":' }}
{{- call.function.arguments|tojson(separators=(',', ':')) + '}' }}
{%- endfor %}
{%- endif %}
{{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; the same each time, as the texts that its words are taken from are."""
    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    digits = {str(number) for number in range(100)} | {f"{number:02}" for number in range(10)}
    words = {piece for text in _texts() for piece, _ in pieces.pre_tokenize_str(text)}
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += sorted((words | digits) - set(tokens))
    tokenizer = Tokenizer(
        models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[], ignore_merges=True)
    )
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=TURN,
        pad_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=LONGEST_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def _texts() -> list[str]:
    texts = []
    for house in (GENERIC, *HOUSES):
        for example in islice(training(house, seed=0), _SAMPLE):
            texts += [example.prompt, example.completion]
        texts += [house.without_tools]
    for example in islice(spellings(seed=0), _SAMPLE):
        texts += [example.prompt, example.completion]
    return texts
