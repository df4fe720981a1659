"""`failsoft backend check`: whether adapters are what their base, their training and their fleet say they are."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from backend.adapters.finding import shown as printable
from gateway.cli.exit_codes import FOUND_WRONG, UNREACHABLE
from gateway.errors import PolicyError
from gateway.policy.models import MAX_LORA_RANKS, Fleet
from gateway.policy.validate import read_folder

if TYPE_CHECKING:
    from backend.adapters.base_model import BaseModel
    from backend.adapters.check import CheckedAdapter

_STYLES: Final = {"error": "red", "warning": "yellow", "info": "cyan"}
_FIGURES: Final = ("rank", "scaling", "kept in", "file", "on a box", "padding")
_COLUMNS: Final = ("adapter", *_FIGURES, "findings")
_ONLY_WIDE: Final = ("kept in", "file", "on a box")
_WIDE: Final = 110
"""Characters a line from which on there is room for those; the JSON has them all."""
_LONG_BYTES: Final = 256 * 1024 * 1024
"""About what is read in the first second."""


def check(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", exists=True, file_okay=False, help="Adapters' folders, as PEFT saves them."),
    ],
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="DIR", help="The base model's folder; by default what --policies names."),
    ] = None,
    base_name: Annotated[
        list[str] | None,
        typer.Option("--base-name", help="The base's name, in place of its folder's. May be repeated."),
    ] = None,
    base_revision: Annotated[
        str | None, typer.Option(help="The base's revision, where its folder does not say.")
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help="Policies, for the fleet's max_lora_rank and base."
        ),
    ] = None,
    fleet: Annotated[str | None, typer.Option(help="Which fleet of the policies, where there are several.")] = None,
    max_lora_rank: Annotated[
        int | None, typer.Option(min=1, help="The boxes' --max-lora-rank, in place of the policies'.")
    ] = None,
    scaling: Annotated[
        float | None, typer.Option(help="What lora_alpha / r (or / √r) has to be, in place of what most adapters have.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help="All adapters and links have to lie within this folder."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print facts as JSON.")] = False,
) -> None:
    """Check LoRA adapters without a GPU, before a box loads them and serves nonsense.

    Give all adapters of a fleet at once: a scaling or rank that differs from the others' is found so. Exits with 1
    where something is wrong, with 3 where the base, the policies or the optional packages (backend) cannot be had.
    """
    named = _fleet(policies, fleet)
    if base is None and named is not None and named.model_path is not None:
        base = Path(named.model_path)
    if base is None:
        raise typer.BadParameter("is needed, unless --policies names a fleet with a model_path", param_hint="--base")
    if max_lora_rank is None and named is not None:
        max_lora_rank = named.max_lora_rank
    elif max_lora_rank is not None and max_lora_rank not in MAX_LORA_RANKS:
        raise typer.BadParameter(f"vLLM takes {', '.join(map(str, MAX_LORA_RANKS))}", param_hint="--max-lora-rank")
    folders = list({directory.resolve(): directory for directory in reversed(directories)}.values())[::-1]
    found_base, checked = _checked(
        folders, base, tuple(base_name or ()), base_revision, max_lora_rank=max_lora_rank, scaling=scaling, root=root,
        progress=not as_json,
    )  # fmt: skip
    wrong = [adapter for adapter in checked if adapter.count("error") or (strict and adapter.count("warning"))]
    if as_json:
        facts = {"ok": not wrong, "base": _base_facts(found_base), "max_lora_rank": max_lora_rank}
        facts["adapters"] = [_facts(adapter, ok=adapter not in wrong) for adapter in checked]
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    else:
        _show(checked, wrong, _not_held(checked, max_lora_rank, scaling))
    if wrong:
        raise typer.Exit(FOUND_WRONG)


def _fleet(policies: Path | None, name: str | None) -> Fleet | None:
    if policies is None:
        if name is not None:
            raise typer.BadParameter("needs --policies", param_hint="--fleet")
        return None
    try:
        fleets = read_folder(policies).fleet.fleets
    except PolicyError as error:
        raise _unavailable(
            f"the policies in {policies} do not hold together: see `failsoft policies validate`\n{error}"
        ) from None
    if name is None and len(fleets) == 1:
        return next(iter(fleets.values()))
    if name not in fleets:
        raise typer.BadParameter(f"has to be one of {', '.join(sorted(fleets))}", param_hint="--fleet")
    return fleets[name]


def _checked(
    folders: Sequence[Path],
    base: Path,
    names: tuple[str, ...],
    revision: str | None,
    *,
    progress: bool,
    **expected: Any,
) -> tuple[BaseModel, list[CheckedAdapter]]:
    try:
        from backend.adapters.check import Expectations, check_adapters
        from backend.adapters.files import WEIGHTS
        from backend.adapters.read import BaseUnreadable, read_base
    except ModuleNotFoundError as missing:
        if missing.name not in {"numpy", "safetensors"}:
            raise
        raise _unavailable(f"{missing.name} is not installed: pip install 'failsoft[backend]'") from None
    try:
        found_base = read_base(base, names=names, revision=revision)
    except BaseUnreadable as error:
        raise _unavailable(str(error)) from None
    sizes = [file.stat().st_size for folder in folders if (file := folder / WEIGHTS).is_file()]
    with _progress(sum(sizes), shown=progress) as on_bytes:
        return found_base, check_adapters(folders, found_base, Expectations(**expected), on_bytes)


@contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for people, where there is enough to read to make them wait."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal or total < _LONG_BYTES:
        yield lambda count: None
        return
    columns = (TextColumn("reading adapters"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def _not_held(checked: Sequence[CheckedAdapter], max_lora_rank: int | None, scaling: float | None) -> Iterator[str]:
    """What could not be checked for want of something to hold it against."""
    if max_lora_rank is None:
        yield "without --max-lora-rank or --policies, ranks were not held against a limit of the fleet"
    known = [adapter for adapter in checked if adapter.held is not None and adapter.scaling]
    unrecorded = [one for one in known if any(finding.code == "no-training-record" for finding in one.findings)]
    if scaling is None and len(known) == 1 and unrecorded:
        yield "scaling was held against nothing: give --scaling, a training record, or the fleet's other adapters"


def _show(checked: Sequence[CheckedAdapter], wrong: Sequence[CheckedAdapter], not_held: Iterator[str]) -> None:
    """The table, then every finding as a sentence of its own, then the sum."""
    console = Console(emoji=False, highlight=False)
    names = _names(checked)
    headings = [name for name in _COLUMNS if console.width >= _WIDE or name not in _ONLY_WIDE]
    table = Table(*(Column(name, no_wrap=name in _FIGURES, overflow="fold") for name in headings))
    for adapter in checked:
        cells: dict[str, str | Text] = {
            "adapter": Text(names[adapter.folder]),
            **_figures(adapter),
            "findings": _codes(adapter),
        }
        table.add_row(*(cells[name] for name in headings))
    console.print(table)
    for adapter in checked:
        for finding in adapter.findings:
            if finding.severity == "info":
                continue  # in the JSON; people who are told of everything read nothing
            line = Text(f"{names[adapter.folder]}: ", style="bold")
            line.append(f"{finding.severity}: ", style=_STYLES[finding.severity])
            line.append(f"{finding.code}: {finding.message}", style="not bold")
            line.append(f" ({finding.remedy})" if finding.remedy else "", style="not bold cyan")
            console.print(line, soft_wrap=True)
    warned = sum(adapter.count("warning") > 0 for adapter in checked)
    sums = f"{len(checked)} adapter{'s' if len(checked) != 1 else ''}, {len(wrong)} wrong, {warned} with warnings"
    sums = "; ".join((sums, *not_held))
    console.print(Text(sums, style="red" if wrong else "green"), soft_wrap=True)


def _figures(adapter: CheckedAdapter) -> dict[str, str]:
    held = adapter.held
    return {
        "rank": str(held.rank) if held is not None else "–",
        "scaling": ", ".join(f"{factor:g}" for factor in adapter.scaling[:3]) or "–",
        "kept in": ", ".join(adapter.dtypes) or "–",
        "file": _megabytes(adapter.size),
        "on a box": _megabytes(held.loaded_bytes if held is not None else None),
        "padding": f"{held.padding:.0%}" if held is not None and held.padding is not None else "–",
    }


def _codes(adapter: CheckedAdapter) -> Text:
    told = [finding for finding in adapter.findings if finding.severity != "info"]
    if not told:
        return Text("fine", style="green")
    codes = Text()
    for finding in {finding.code: finding for finding in reversed(told)}.values():
        codes = Text(finding.code, style=_STYLES[finding.severity]) + Text("\n" if codes else "") + codes
    return codes


def _facts(adapter: CheckedAdapter, *, ok: bool) -> dict[str, Any]:
    held = adapter.held
    return {
        "name": _label(adapter.folder),
        "path": str(adapter.folder),
        "ok": ok,
        "rank": held.rank if held is not None else None,
        "scaling": list(adapter.scaling),
        "dtypes": list(adapter.dtypes),
        "size_bytes": adapter.size,
        "loaded_bytes": held.loaded_bytes if held is not None else None,
        "slot_bytes": held.slot_bytes if held is not None else None,
        "padding": round(held.padding, 4) if held is not None and held.padding is not None else None,
        "weights_digest": adapter.digest or None,
        "findings": [
            {"code": f.code, "severity": f.severity, "message": f.message, "remedy": f.remedy, "where": list(f.modules)}
            for f in adapter.findings
        ],
    }


def _base_facts(base: BaseModel) -> dict[str, Any]:
    return {"names": list(base.names), "revision": base.revision, "model_type": base.model_type, "dtype": base.dtype}


def _names(checked: Sequence[CheckedAdapter]) -> dict[Path, str]:
    """The folder's name, and its whole path where several have the same."""
    names = {adapter.folder: _label(adapter.folder) for adapter in checked}
    often = Counter(names.values())
    return {folder: printable(str(folder) if often[name] > 1 else name) for folder, name in names.items()}


def _label(folder: Path) -> str:
    """The folder's name as it was given, links not followed: `current`, where that leads to `customer_acme_v3`."""
    return folder.name if folder.name not in {"", ".."} else folder.resolve().name


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:.1f} MB"


def _unavailable(message: str) -> typer.Exit:
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"failsoft: {message}", style="red"))
    return typer.Exit(UNREACHABLE)
