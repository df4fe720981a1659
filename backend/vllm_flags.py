"""Which command-line flags each release of vLLM takes: a table, and what became of flags that are gone.

The table is ``vllm_flags.tsv``, made by :mod:`backend.flag_survey` from the releases' sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, get_args

TABLE: Final = Path(__file__).parent / "vllm_flags.tsv"
_HEADER: Final = "# Which flags `vllm serve` takes, by release. Made by `python -m backend.flag_survey`; do not edit.\n"

Kind = Literal["value", "optional", "switch", "toggle"]
"""``value``: one or more follow. ``optional``: one may. ``switch``: none. ``toggle``: a switch with a --no- twin."""

REPLACED: Final = {
    "--swap-space": "leave it out: vLLM recomputes preempted requests and swaps nothing to the CPU",
    "--num-scheduler-steps": "leave it out: --async-scheduling, on by default, does what it was for",
    "--multi-step-stream-outputs": "leave it out, it went with --num-scheduler-steps; --stream-interval spaces chunks",
    "--use-v2-block-manager": "leave it out: there is only one block manager now",
    "--disable-log-requests": "leave it out: requests are not logged unless --enable-log-requests is given",
    "--guided-decoding-backend": """write --structured-outputs-config '{"backend": "xgrammar"}', or leave it out""",
    "--lora-extra-vocab-size": "leave it out: adapters with tokens of their own are not served any more",
    "--long-lora-scaling-factors": "leave it out: LongLoRA adapters are not served any more",
    "--enable-prompt-adapter": "leave it out: prompt adapters are not served any more",
    "--max-prompt-adapters": "leave it out: prompt adapters are not served any more",
    "--max-prompt-adapter-token": "leave it out: prompt adapters are not served any more",
    "--speculative-model": """write --speculative-config '{"model": …, "num_speculative_tokens": …}'""",
    "--num-speculative-tokens": """write --speculative-config '{"model": …, "num_speculative_tokens": …}'""",
    "--max-seq-len-to-capture": "write --max-cudagraph-capture-size, which counts tokens in a batch",
    "--max-context-len-to-capture": "write --max-cudagraph-capture-size, which counts tokens in a batch",
    "--num-lookahead-slots": "leave it out: speculative decoding reserves what it needs",
    "--worker-use-ray": "write --distributed-executor-backend ray",
    "--engine-use-ray": "leave it out: the engine is a process of its own",
    "--disable-async-output-proc": "leave it out; --no-async-scheduling is nearest to it",
    "--preemption-mode": "leave it out: preempted requests are always recomputed",
    "--scheduler-delay-factor": "leave it out: nothing took its place",
    "--device": "leave it out: the platform is found by what vLLM was built for",
    "--task": "write --runner and --convert",
    "--rope-scaling": """write --hf-overrides '{"rope_scaling": …}'""",
    "--rope-theta": """write --hf-overrides '{"rope_theta": …}'""",
    "--disable-frontend-multiprocessing": "leave it out: the API server and the engine are always two processes",
}
"""What to do instead of a flag that the release asked for has not got, if it once was there."""


def parse_version(text: str) -> tuple[int, ...]:
    """``v0.6.3.post1`` as ``(0, 6, 3)``. Raises ValueError for what is no version."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a version of vLLM: write 0.32, for example")
    return tuple(int(part) for part in match.groups() if part is not None)


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. ``aliases``: its other names. ``versions``: the releases of the table that take it, oldest first.

    ``values``: what it takes, by release, in the words of :mod:`backend.flag_values`; a release that is not there was
    not surveyed for that, or takes any text.
    """

    name: str
    kind: Kind
    aliases: tuple[str, ...]
    versions: tuple[str, ...]
    values: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every way to write it."""
        negated = tuple(f"--no-{n[2:]}" for n in (self.name, *self.aliases) if n.startswith("--"))
        return (self.name, *self.aliases, *(negated if self.kind == "toggle" else ()))


@dataclass(frozen=True)
class Release:
    """What one release of vLLM takes. ``known``: false where it was not surveyed, and ``like`` stands in for it."""

    version: str
    like: str
    known: bool
    flags: tuple[Flag, ...]
    others: tuple[Flag, ...]
    """Flags that other releases take."""

    def find(self, name: str) -> Flag | None:
        """The flag of this release that is written ``name``, if with ``_`` for ``-``, ``=VALUE`` or ``.KEY``."""
        return _by_name(self.flags).get(canonical(name))

    def elsewhere(self, name: str) -> Flag | None:
        """The flag of another release that is written ``name``."""
        return _by_name(self.others).get(canonical(name))

    def values(self, flag: Flag) -> str | None:
        """What ``flag`` takes; None where that is not known, or is any text."""
        return dict(flag.values).get(self.like)

    @property
    def max_lora_ranks(self) -> tuple[int, ...]:
        """What ``--max-lora-rank`` takes: ``LoRAConfig`` of each release."""
        if parse_version(self.like) < (0, 7):
            return (8, 16, 32, 64, 128, 256)
        return (1, 8, 16, 32, 64, 128, 256, 320, 512)


def canonical(name: str) -> str:
    """``--max_loras=8`` as ``--max-loras``, ``-O3`` as ``--optimization-level``."""
    if name.startswith("-O"):
        return "--optimization-level"
    name = name.partition("=")[0].partition(".")[0]
    return name.replace("_", "-") if name.startswith("--") else name


@cache
def _by_name(flags: tuple[Flag, ...]) -> dict[str, Flag]:
    return {name: flag for flag in flags for name in flag.names}


def release(version: str) -> Release:
    """The release that ``version`` names. One that is not in the table is taken for the nearest older one that is.

    Raises ValueError for what is no version.
    """
    wanted = parse_version(version)
    versions, flags = _table()
    exact = next((known for known in versions if wanted[: len(parse_version(known))] == parse_version(known)), None)
    older = [known for known in versions if parse_version(known) <= wanted]
    like = exact or (older[-1] if older else versions[0])
    return Release(
        version=version,
        like=like,
        known=exact is not None,
        flags=tuple(flag for flag in flags if like in flag.versions),
        others=tuple(flag for flag in flags if like not in flag.versions),
    )


def known_versions() -> tuple[str, ...]:
    """The releases of the table, oldest first."""
    return _table()[0]


@cache
def _table() -> tuple[tuple[str, ...], tuple[Flag, ...]]:
    return read_table(TABLE.read_text())


def read_table(text: str) -> tuple[tuple[str, ...], tuple[Flag, ...]]:
    """Versions and flags of the table. Raises ValueError where it is damaged."""
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    if not rows or rows[0][:3] != ["flag", "kind", "aliases"]:
        raise ValueError("vllm_flags.tsv has no heading")
    versions = tuple(rows[0][3].split())
    flags = []
    for name, kind, aliases, taken, values in rows[1:]:
        if kind not in get_args(Kind):
            raise ValueError(f"vllm_flags.tsv: {name} has kind {kind}")
        found = Flag(
            name,
            kind,  # type: ignore[arg-type]
            tuple(aliases.split()),
            _expand(taken, versions),
            tuple(
                (version, what)
                for ranges, _, what in (part.partition("=") for part in values.split())
                for version in _expand(ranges, versions)
            ),
        )
        flags.append(found)
    return versions, tuple(flags)


def write_table(versions: Sequence[str], flags: Iterable[Flag]) -> str:
    """The table's text; :func:`read_table` reads it."""
    lines = ["\t".join(("flag", "kind", "aliases", " ".join(versions), "values"))]
    lines += [
        "\t".join((f.name, f.kind, " ".join(f.aliases), _ranges(f.versions, versions), _values(f, versions)))
        for f in flags
    ]
    return _HEADER + "\n".join(lines) + "\n"


def _ranges(taken: Sequence[str], versions: Sequence[str]) -> str:
    """``0.6.3 0.20..0.32``"""
    runs: list[list[str]] = []
    for before, version in zip(("", *versions), versions, strict=False):
        if version in taken:
            if runs and runs[-1][-1] == before:
                runs[-1].append(version)
            else:
                runs.append([version])
    return " ".join(run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


def _values(flag: Flag, versions: Sequence[str]) -> str:
    """``0.31=int 0.32=auto,fp8``"""
    by_release = dict(flag.values)
    runs = [
        f"{run}={what}"
        for what in dict.fromkeys(by_release.values())
        for run in _ranges([version for version in versions if by_release.get(version) == what], versions).split()
    ]
    return " ".join(sorted(runs, key=lambda run: versions.index(re.split(r"\.\.|=", run)[0])))


def _expand(ranges: str, versions: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for part in ranges.split():
        first, _, last = part.partition("..")
        found += versions[versions.index(first) : versions.index(last or first) + 1]
    return tuple(found)
