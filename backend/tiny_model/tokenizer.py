"""The tiny model's tokenizer: byte-level BPE over a small text, with Llama 3's special tokens and a chat template.

Byte-level, so that every text has tokens. `<|python_tag|>` is what vLLM's `llama3_json` tool parser looks up.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product, repeat
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast  # type: ignore[import-not-found]

VOCABULARY: Final = 1024
LONGEST_CONTEXT: Final = 2048

BEGIN: Final = "<|begin_of_text|>"
END: Final = "<|end_of_text|>"
TURN: Final = "<|eot_id|>"
SPECIAL: Final = (BEGIN, END, TURN, "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>")

_SENTENCES: Final = (  # every choice of one word per line
    "agent customer driver engineer manager operator partner planner supplier teacher",
    "accepts answers cancels checks delivers finds opens orders plans returns ships updates",
    "account basket contract form invoice letter meeting parcel report ticket voucher warehouse",
    "after before during except for from in near on under until with",
    "April Berlin breakfast holidays Lyon Monday noon repairs review sunset training winter",
)
_TOOL_CALL: Final = '{"name": "find_order", "parameters": {"order": "48213", "when": "2026-07-04", "city": "Lyon"}}'

# Llama 3's shape in short. The last message's text is rendered as it stands, so that it can be continued.
CHAT_TEMPLATE: Final = """\
{{- bos_token }}
{%- if tools %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nTools:' }}
{%- for tool in tools %}{{ ' ' + tool.function.name }}{% endfor %}
{{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{%- if message.content is string %}{{ message.content }}
{%- elif message.content %}
{%- for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}
{%- endif %}
{%- if message.tool_calls is defined and message.tool_calls %}
{%- for call in message.tool_calls %}
{{- '{"name": ' + call.function.name|tojson + ', "parameters": ' + call.function.arguments|tojson + '}' }}
{%- endfor %}
{%- endif %}
{{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer. The same each time: the text is fixed and BPE has no randomness."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(), trainer)
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


def words() -> frozenset[str]:
    """All words of the sentences: each is a token of its own, with a space before it."""
    return frozenset(word for line in _SENTENCES for word in line.split())


def _text() -> Iterator[str]:
    columns = [line.split() for line in _SENTENCES]
    for choice in islice(product(*columns), 0, None, 7):  # a seventh of them holds every word often enough
        yield "The {} {} the {} {} {}.".format(*choice)
    yield from repeat(_TOOL_CALL, 100)
