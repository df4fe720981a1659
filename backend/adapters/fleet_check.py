"""What only shows beside the other adapters: a scaling or a rank of its own, and the same weights twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backend.adapters.finding import Finding, error, info, shown, warning
from backend.adapters.scaling import same

_NAMED: Final = 3
"""Of adapters that are alike; each of them has a finding of its own."""


@dataclass(frozen=True, slots=True)
class Member:
    """``recorded``: a training record confirms the scaling. ``digest`` is of the weights."""

    name: str
    scaling: tuple[float, ...]
    rank: int
    digest: str
    recorded: bool


def check_fleet(members: Sequence[Member], *, compare_scaling: bool = True) -> dict[str, list[Finding]]:
    """Findings by member's name. With one member there is nothing to compare."""
    findings: dict[str, list[Finding]] = defaultdict(list)
    for name, finding in (*(_scalings(members) if compare_scaling else ()), *_ranks(members), *_twins(members)):
        findings[name].append(finding)
    return findings


def _scalings(members: Sequence[Member]) -> Iterator[tuple[str, Finding]]:
    groups: list[list[Member]] = []
    for member in members:
        group = next((g for g in groups if same(g[0].scaling, member.scaling)), None)
        if group is None:
            groups.append([member])
        else:
            group.append(member)
    if len(groups) < 2:
        return
    most = max(groups, key=len)
    rest = most if 2 * len(most) > len(members) else None
    for member in members:
        if rest is not None and member in rest:
            continue
        own = _factor(member)
        if rest is None:
            others = " or ".join(sorted({_factor(group[0]) for group in groups if member not in group}))
            message = f"it scales by {own} and others by {others}, with no majority for either"
            finding = error(
                "scaling-mixed",
                message,
                "Set lora_alpha to what training had; say what is right by --scaling or training_record.json.",
            )
        else:
            message = f"it scales by {own}, and {len(rest)} of {len(members)} adapters by {_factor(rest[0])}"
            finding = error(
                "scaling-differs-from-fleet",
                message,
                "Set lora_alpha, r and use_rslora to what training had; if that is so, add its training_record.json.",
            )
        if member.recorded:
            finding = info(finding.code, message, "Its training record has the same, so this is meant.")
        yield member.name, finding


def _ranks(members: Sequence[Member]) -> Iterator[tuple[str, Finding]]:
    counts: Mapping[int, int] = _counts([member.rank for member in members])
    common, many = max(counts.items(), key=lambda entry: (entry[1], entry[0])) if counts else (0, 0)
    if 2 * many <= len(members):
        return
    for member in members:
        if member.rank != common:
            message = f"it has rank {member.rank}, and {many} of {len(members)} adapters have {common}"
            yield (
                member.name,
                warning("rank-differs-from-fleet", message, "Mixed ranks waste the slots' memory: train all with one."),
            )


def _twins(members: Sequence[Member]) -> Iterator[tuple[str, Finding]]:
    by_digest: dict[str, list[str]] = defaultdict(list)
    for member in members:
        by_digest[member.digest].append(member.name)
    for names in by_digest.values():
        for name in names if len(names) > 1 else ():
            others = _some([shown(other) for other in names if other != name])
            message = f"its weights are those of {others}, bit for bit"
            yield (
                name,
                warning("weights-shared", message, "One customer may have got another's adapter: export it again."),
            )


def _some(names: Sequence[str]) -> str:
    """The first few."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _factor(member: Member) -> str:
    return " and ".join(f"{factor:g}" for factor in member.scaling)


def _counts(values: Sequence[int]) -> dict[int, int]:
    return {value: values.count(value) for value in values}
