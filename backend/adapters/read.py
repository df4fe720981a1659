"""An adapter and a base model, read from their folders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from backend.adapters.base_model import BaseModel, describe
from backend.adapters.files import CONFIG, WEIGHTS, Folder, unreadable
from backend.adapters.finding import Finding, error, info, shown
from backend.adapters.lora_config import LoraConfig, parse
from backend.adapters.tensors import Weights
from backend.adapters.training_record import FILE as RECORD
from backend.adapters.vocabulary import Tokenizer
from backend.adapters.weights import read_weights

_LONGEST_TOKENIZER: Final = 128 * 1024 * 1024
_DOWNLOADED: Final = ".cache/huggingface/download/config.json.metadata"  # its first line is the commit
_AGAIN: Final = "Export the adapter again with PEFT."


class BaseUnreadable(Exception):
    """Nothing can be checked without the base's config.json. Says why it cannot be had."""


@dataclass(slots=True)
class ReadAdapter:
    """What was understood of an adapter, and what was wrong so far. ``record`` is of its training."""

    config: LoraConfig | None = None
    record: LoraConfig | None = None
    weights: Weights | None = None
    tokenizer: Tokenizer | None = None
    findings: list[Finding] = field(default_factory=list)


class _Token(msgspec.Struct):
    content: str
    id: int


class _Vocabulary(msgspec.Struct):
    vocab: dict[str, int] | list[Any] = msgspec.field(default_factory=dict)


class _TokenizerFile(msgspec.Struct):
    model: _Vocabulary
    added_tokens: list[_Token] = msgspec.field(default_factory=list)


def read_base(folder: Path, *, names: tuple[str, ...] = (), revision: str | None = None) -> BaseModel:
    """The base in ``folder``, without its weights. ``names`` and ``revision`` are used in place of its own.

    Raises BaseUnreadable.
    """
    files = Folder(folder, None)
    try:
        config = files.json("config.json")
        downloaded = (files.text(_DOWNLOADED) or "").split()
        tokenizer = _tokenizer(files, None)
    except (OSError, ValueError, msgspec.MsgspecError) as problem:
        raise BaseUnreadable(f"the base cannot be read from {folder}: {shown(str(problem))}") from None
    if not isinstance(config, dict):
        what = "holds no config.json" if config is None else "has a config.json that is no JSON object"
        raise BaseUnreadable(f"{folder} {what}: --base has to be the folder of a Hugging Face model")
    commit = revision or (downloaded[0] if downloaded else None)
    folders = str(folder.absolute()), str(files.path)
    return describe(config, folders=folders, names=names, revision=commit, tokenizer=tokenizer)


def read_adapter(folder: Path, base: BaseModel, *, root: Path | None, on_bytes: Callable[[int], None]) -> ReadAdapter:
    """Everything in ``folder`` that counts. Links may lead anywhere within ``root``; None: within the folder only."""
    found = ReadAdapter()
    files = Folder(folder, root if root is not None else folder)
    if not files.inside:
        message = f"{folder} really lies in {files.path}, outside of --root {root}"
        found.findings.append(error("path-traversal", message, "Move it there, or name another root."))
        return found
    found.findings += files.strangers()
    strangers = {name for finding in found.findings for name in finding.modules}
    found.config = _config(files, CONFIG, found, due=CONFIG not in strangers)
    found.record = _config(files, RECORD, found, due=False)
    if found.config is not None and files.file(RECORD) is None:
        found.findings.append(info("no-training-record", f"no {RECORD} beside it to hold it against"))
    try:
        if (path := files.file(WEIGHTS)) is not None:
            found.weights, findings = read_weights(path, on_bytes)
            found.findings += findings
        elif WEIGHTS not in strangers and not any(finding.code == "pickle" for finding in found.findings):
            found.findings.append(error("weights-missing", f"there is no {WEIGHTS}", _AGAIN))
    except OSError as problem:
        found.findings.append(unreadable(WEIGHTS, problem))
    try:
        found.tokenizer = _tokenizer(files, base.tokenizer)
    except (OSError, ValueError, msgspec.MsgspecError) as problem:
        found.findings.append(unreadable("its tokenizer", problem))
    return found


def _config(files: Folder, name: str, found: ReadAdapter, *, due: bool) -> LoraConfig | None:
    try:
        raw = files.json(name)
    except (OSError, ValueError) as problem:
        found.findings.append(unreadable(name, problem))
        return None
    if raw is None and files.file(name) is None:
        if due:
            inner = sorted(path.parent.name for path in files.path.glob(f"*/{CONFIG}"))
            remedy = f"Name the adapters' own folders, such as {shown(inner[0])} in it." if inner else _AGAIN
            found.findings.append(error("config-missing", f"there is no {name}", remedy))
        return None
    config, findings = parse(raw, name)
    found.findings += findings
    return config


def _tokenizer(files: Folder, base: Tokenizer | None) -> Tokenizer | None:
    """None where nothing of one is there. Where the file is the base's, what the base has is not parsed again."""
    settings = files.json("tokenizer_config.json")
    settings = settings if isinstance(settings, dict) else {}
    template = files.text("chat_template.jinja") or settings.get("chat_template")
    found = Tokenizer(
        chat_template=template if isinstance(template, str) else None,
        eos_token=_token(settings.get("eos_token")),
        pad_token=_token(settings.get("pad_token")),
    )
    text = files.text("tokenizer.json", _LONGEST_TOKENIZER)
    if text is not None:
        digest = hashlib.sha256(text.encode()).hexdigest()
        if base is not None and digest == base.digest:
            return replace(found, digest=digest, tokens=base.tokens)
        return replace(found, digest=digest, tokens=_tokens(text))
    if isinstance(added := files.json("added_tokens.json"), dict):  # of tokenizers without a tokenizer.json
        return replace(found, tokens={name: number for name, number in added.items() if isinstance(number, int)})
    return found if settings or template else None


def _tokens(text: str) -> dict[str, int]:
    parsed = msgspec.json.decode(text, type=_TokenizerFile)
    vocabulary = parsed.model.vocab
    if isinstance(vocabulary, list):  # Unigram: [token, score] in the order of ids
        tokens = {str(entry[0]): number for number, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    else:
        tokens = dict(vocabulary)
    return tokens | {token.content: token.id for token in parsed.added_tokens}


def _token(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
