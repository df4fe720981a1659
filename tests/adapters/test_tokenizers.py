"""The tokenizer beside an adapter against the base's, which is the one that boxes use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.bench import Bench

VOCABULARY = {f"word{number}": number for number in range(90)}


def save_tokenizer(
    folder: Path, *, vocabulary: Any = VOCABULARY, added: dict[str, int] | None = None, **settings: Any
) -> None:
    tokens = [{"content": name, "id": number, "special": True} for name, number in (added or {"<s>": 90}).items()]
    content = {"version": "1.0", "added_tokens": tokens, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture
def adapter(bench: Bench) -> Path:
    save_tokenizer(bench.base, eos_token="<s>", chat_template="{{ messages }}")
    return bench.adapter()


def test_the_bases_own_tokenizer_passes(bench: Bench, adapter: Path) -> None:
    save_tokenizer(adapter, eos_token={"content": "<s>"}, chat_template="{{ messages }}\n")
    assert bench.check(adapter, options=["--strict"]).code == 0


def test_tokens_past_the_bases_vocabulary_are_found(bench: Bench, adapter: Path) -> None:
    save_tokenizer(adapter, added={"<s>": 90, "<call>": 100})
    verdict = bench.check(adapter)
    assert (verdict.code, verdict.codes()) == (1, {"tokens-beyond-vocabulary"})
    assert "<call>" in verdict.finding("tokens-beyond-vocabulary")["message"]


def test_tokens_that_the_base_has_past_its_own_vocabulary_pass(bench: Bench, adapter: Path) -> None:
    for folder in (bench.base, adapter):
        save_tokenizer(folder, added={"<s>": 90, "<image>": 100})
    assert bench.check(adapter, options=["--strict"]).code == 0


def test_tokens_that_the_base_has_not_are_found(bench: Bench, adapter: Path) -> None:
    save_tokenizer(adapter, added={"<s>": 90, "<call>": 91})
    assert bench.check(adapter).codes() == {"tokens-added"}


def test_a_token_for_padding_alone_is_a_warning(bench: Bench, adapter: Path) -> None:
    save_tokenizer(adapter, added={"<s>": 90, "<pad>": 91}, pad_token="<pad>")
    verdict = bench.check(adapter)
    assert (verdict.code, verdict.codes(severity="warning")) == (0, {"pad-token-added"})


def test_another_order_of_tokens_is_found(bench: Bench, adapter: Path) -> None:
    save_tokenizer(adapter, vocabulary=VOCABULARY | {"word3": 4, "word4": 3})
    assert bench.check(adapter).codes() == {"tokenizer-differs"}


def test_a_vocabulary_that_is_a_list_is_understood(bench: Bench, adapter: Path) -> None:
    save_tokenizer(adapter, vocabulary=[[name, -1.5] for name in VOCABULARY])
    assert bench.check(adapter, options=["--strict"]).code == 0


def test_tokens_added_beside_an_older_tokenizer_are_found(bench: Bench, adapter: Path) -> None:
    (adapter / "added_tokens.json").write_text(json.dumps({"<call>": 100}))
    assert bench.check(adapter).codes() == {"tokens-beyond-vocabulary"}


def test_another_chat_template_is_a_warning(bench: Bench, adapter: Path) -> None:
    (adapter / "chat_template.jinja").write_text("{{ bos_token }}{{ messages }}")
    assert bench.check(adapter).codes(severity="warning") == {"chat-template-differs"}


def test_another_end_of_turn_is_a_warning(bench: Bench, adapter: Path) -> None:
    save_tokenizer(adapter, eos_token="word1")
    assert bench.check(adapter).codes(severity="warning") == {"eos-token-differs"}


def test_a_tokenizer_that_cannot_be_read_is_said(bench: Bench, adapter: Path) -> None:
    (adapter / "tokenizer.json").write_text('{"model": 5}')
    assert bench.check(adapter).codes() == {"unreadable"}
