"""Whether the adapters that policies name are where a box will look for them, as far as can be seen from here.

Only what keeps a box from starting: `failsoft backend check` looks into adapters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from backend.objections import Objection

NAMED = 5
"""How many names a line about many adapters gives."""


def adapter_paths(root: str, names: list[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Each adapter's folder: as ``given``, or under ``root``, which are paths on the box."""
    return {name: (given or {}).get(name) or f"{root.rstrip('/')}/{name}" for name in sorted(names)}


def folder_objections(root: str, adapters: Mapping[str, str], max_lora_rank: int, *, here: bool) -> Iterator[Objection]:
    """What is missing or too large under ``root``; unless ``here``, nothing where that folder cannot be read."""
    if not Path(root).is_dir():
        if here:
            yield Objection(
                "adapter_root", f"is {root}, which is no folder here", "start the box where the adapters are"
            )
        return
    missing, too_large = [], []
    for name, path in adapters.items():
        config = Path(path) / "adapter_config.json"
        try:
            rank = json.loads(config.read_text()).get("r")
        except FileNotFoundError:
            missing.append(name)
        except (OSError, ValueError, AttributeError) as error:
            yield Objection(f"adapter {name}", f"has an unreadable {config}: {error}", "export it again")
        else:
            if isinstance(rank, int) and rank > max_lora_rank:
                too_large.append(f"{name} (rank {rank})")
    if missing:
        yield Objection(
            _some("adapter", missing),
            f"{'is' if len(missing) == 1 else 'are'} not in {root}: vLLM would not start",
            f"put each into {root.rstrip('/')}/NAME with its adapter_config.json, or take it out of the policies",
        )
    if too_large:
        yield Objection(
            _some("adapter", too_large),
            f"{'is' if len(too_large) == 1 else 'are'} of a higher rank than max_lora_rank ({max_lora_rank}): "
            "vLLM would not start",
            "raise max_lora_rank of the fleet, or train with a lower rank",
        )


def _some(noun: str, names: list[str]) -> str:
    more = len(names) - NAMED
    listed = ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{noun}{'s' if len(names) > 1 else ''} {listed}"
