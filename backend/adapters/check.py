"""All checks together: some adapters, their base and what the fleet expects in, findings by adapter out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backend.adapters.base_model import BaseModel
from backend.adapters.features import check_features
from backend.adapters.finding import Finding, Severity
from backend.adapters.fleet_check import Member, check_fleet
from backend.adapters.footprint import Footprint, check_footprint, footprint
from backend.adapters.lora_config import LoraConfig
from backend.adapters.numbers import check_numbers
from backend.adapters.origin import check_origin
from backend.adapters.ranks import check_against_limit, check_ranks
from backend.adapters.read import ReadAdapter, read_adapter
from backend.adapters.scaling import check_scaling, same, scalings
from backend.adapters.shapes import check_shapes
from backend.adapters.tensors import Weights
from backend.adapters.training_record import check_record
from backend.adapters.vocabulary import check_tokenizer

_AT_ONCE: Final = 4  # numpy and file reads let other threads run; past that disks gain nothing
_ORDER: Final[dict[Severity, int]] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the fleet says. ``scaling`` is of every adapter; None leaves it to the training records and the majority."""

    max_lora_rank: int | None = None
    scaling: float | None = None
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class CheckedAdapter:
    """``scaling``: each factor that occurs; empty where it cannot be told. ``findings``: worst first."""

    folder: Path
    findings: tuple[Finding, ...]
    size: int | None = None
    digest: str = ""
    dtypes: tuple[str, ...] = ()
    scaling: tuple[float, ...] = ()
    recorded: bool = False
    held: Footprint | None = None

    def count(self, severity: Severity) -> int:
        """How many findings are of that severity."""
        return sum(finding.severity == severity for finding in self.findings)


def check_adapters(
    folders: Sequence[Path],
    base: BaseModel,
    expected: Expectations,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> list[CheckedAdapter]:
    """Check each folder, several at a time, and then each beside the others. ``on_bytes`` is called from threads."""

    def check(folder: Path) -> CheckedAdapter:
        return _checked(folder, read_adapter(folder, base, root=expected.root, on_bytes=on_bytes), base, expected)

    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        checked = list(pool.map(check, folders))
    members = [
        Member(str(adapter.folder), adapter.scaling, adapter.held.rank, adapter.digest, adapter.recorded)
        for adapter in checked
        if adapter.held is not None and adapter.scaling
    ]
    beside = check_fleet(members, compare_scaling=expected.scaling is None)
    return [
        replace(adapter, findings=_sorted((*adapter.findings, *beside.get(str(adapter.folder), ()))))
        for adapter in checked
    ]


def _checked(folder: Path, read: ReadAdapter, base: BaseModel, expected: Expectations) -> CheckedAdapter:
    config, weights = read.config, read.weights
    findings = [*read.findings, *_judge(read, base, expected)]
    held = footprint(weights, base, expected.max_lora_rank) if weights is not None and weights.pairs else None
    if held is not None and not any(finding.code.startswith("rank-") for finding in findings):
        findings += check_footprint(held, expected.max_lora_rank)
    scaling = scalings(config, weights) if config is not None else ()
    return CheckedAdapter(
        folder=folder,
        findings=_sorted(findings),
        size=weights.size if weights is not None else None,
        digest=weights.digest if weights is not None else "",
        dtypes=tuple(sorted({tensor.dtype for tensor in weights.tensors})) if weights is not None else (),
        scaling=scaling,
        recorded=read.record is not None and same(scaling, scalings(read.record, weights)),
        held=held,
    )


def _judge(read: ReadAdapter, base: BaseModel, expected: Expectations) -> Iterator[Finding]:
    """Every check whose facts could be read."""
    if read.config is not None:
        yield from check_origin(read.config, base)
        yield from check_features(read.config.raw)
        yield from check_against_limit(read.config, read.weights, expected.max_lora_rank)
    if read.weights is not None:
        yield from check_numbers(read.weights, base)
    if read.config is not None and read.weights is not None:
        yield from _judge_both(read.config, read.weights, read.record, base, expected)
    if read.tokenizer is not None:
        yield from check_tokenizer(read.tokenizer, base.tokenizer, base.vocab_size)


def _judge_both(
    config: LoraConfig, weights: Weights, record: LoraConfig | None, base: BaseModel, expected: Expectations
) -> Iterator[Finding]:
    yield from check_ranks(config, weights)
    yield from check_scaling(config, weights, expected.scaling)
    yield from check_shapes(config, weights, base)
    if record is not None:
        yield from check_record(record, config, weights)


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    told = {(finding.code, finding.message): finding for finding in findings}
    return tuple(sorted(told.values(), key=lambda finding: _ORDER[finding.severity]))
