"""What `failsoft backend sync` says: the plan, each step as it ends, the sum; and all of it for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from gateway.adapters.box_sync import BoxReport, Step
from gateway.adapters.plan import WRONG, Action, Held, Kind, Load, Unload, Verify
from gateway.cli.sync_lines import some

_DONE = {Load: "loaded", Verify: "answers", Unload: "unloaded"}
_FAILED = {Load: "was not loaded", Verify: "does not answer", Unload: "was not unloaded"}
_CHECK = "`failsoft backend check` finds what is wrong with a folder"


class SyncScreen:
    """For people, on stdout. ``quiet``: machines read that."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(soft_wrap=True, highlight=False, emoji=False)
        self._said: dict[str, list[str]] = {}

    def plan(self, report: BoxReport) -> None:
        """What is to be done on a box, and what is left and why; nothing where that was said before."""
        lines = [self._plan_line(action) for action in report.plan.actions if _is_shown(action)]
        foreign = [held.adapter for held in report.plan.held if held.kind is Kind.NOT_OURS]
        lines += [_held_line(held) for held in report.plan.held if held.kind is not Kind.NOT_OURS]
        if foreign:
            lines.append(
                Text(f"leave {some(foreign)}: not ours, no policy is known to have named them (--prune unloads)")
            )
        if report.trouble:
            lines.append(Text(report.trouble, style="red"))
        plain = [line.plain for line in lines]
        if plain == self._said.get(report.box, []):
            return
        self._said[report.box] = plain
        for line in lines:
            self._line(report.box, line)

    def step(self, step: Step) -> None:
        """A step ended; one that takes long is said as it begins, where somebody looks on."""
        adapter, kind = step.action.adapter, type(step.action)
        if step.outcome == "begun":
            if isinstance(step.action, Load) and self._console.is_terminal:
                self._line(step.box, Text(f"loading {adapter} …", style="dim"))
            return
        if step.outcome == "done":
            self._line(step.box, Text(f"{adapter} {_DONE[kind]} ({step.took_s:.2f} s)", style="green"))
            return
        said = f"{adapter} {_FAILED[kind]}" if step.outcome == "failed" else f"{adapter} was unloaded again"
        advice = f"; {_CHECK}" if isinstance(step.action, Load | Verify) else ""
        self._line(step.box, Text(f"{said}: {step.text}{advice}", style="red"))

    def end(self, reports: Sequence[BoxReport], *, dry_run: bool) -> None:
        """The sum, where something was done or is wrong, or this is all that is said."""
        found = _sums(reports)
        line = f"{len(reports)} box{'' if len(reports) == 1 else 'es'}: "
        if dry_run:
            loads, unloads = (
                sum(isinstance(action, kind) for report in reports for action in report.plan.actions)
                for kind in (Load, Unload)
            )
            line += f"{loads} to load, {unloads} to unload, {found['kept']} as they should be"
        else:
            line += f"{found['loaded']} loaded, {found['unloaded']} unloaded, {found['kept']} as they should be"
        waiting = sum(len(report.plan.waiting) for report in reports)
        line += f", {waiting} to be unloaded later" if waiting else ""
        line += f"; {found['wrong']} could not be made" if found["wrong"] else ""
        line += f"; {found['unreached']} not reached" if found["unreached"] else ""
        bad = found["wrong"] or found["unreached"]
        if self._said.get("", []) != [line]:
            self._said[""] = [line]
            if not self._quiet:
                self._console.print(Text(line, style="red" if bad else "green"))
                self._console.file.flush()

    def _plan_line(self, action: Action) -> Text:
        match action:
            case Load(adapter, path):
                return Text(f"load {adapter} ({path})")
            case Verify(adapter):
                return Text(f"ask {adapter} for a token")
            case Unload(adapter, why):
                return Text(f"unload {adapter}: {why}")

    def _line(self, box: str, line: Text) -> None:
        if not self._quiet:
            styled = Text(line.plain, style=line.style or "not bold")
            self._console.print(Text(f"{box}: ", style="bold").append_text(styled))
            self._console.file.flush()


def facts(reports: Sequence[BoxReport], *, dry_run: bool) -> dict[str, Any]:
    """All of it. ``took_s``: seconds; ``until``: Unix time."""
    found = _sums(reports)
    return {
        "ok": not found["wrong"] and not found["unreached"],
        "dry_run": dry_run,
        "boxes": [
            {
                "box": report.box,
                "reached": not report.unreached,
                "trouble": report.trouble,
                "kept": list(report.plan.kept),
                "planned": [_action(action) for action in report.plan.actions],
                "done": [
                    {
                        **_action(step.action),
                        "outcome": step.outcome,
                        "text": step.text,
                        "took_s": round(step.took_s, 3),
                    }
                    for step in report.steps
                ],
                "left": [
                    {"adapter": held.adapter, "why": str(held.kind), "text": held.text, "until": held.until_s}
                    for held in report.plan.held
                ],
            }
            for report in reports
        ],
    }


def _action(action: Action) -> dict[str, Any]:
    found: dict[str, Any] = {"action": type(action).__name__.lower(), "adapter": action.adapter}
    if isinstance(action, Load):
        found["path"] = action.path
    return found


def _sums(reports: Sequence[BoxReport]) -> dict[str, int]:
    steps = [step for report in reports for step in report.steps if step.outcome == "done"]
    return {
        "loaded": sum(isinstance(step.action, Verify) and step.action.fresh for step in steps),
        "unloaded": sum(isinstance(step.action, Unload) for step in steps),
        "kept": sum(len(report.plan.kept) for report in reports),
        "wrong": sum(
            len({held.adapter for held in report.plan.wrong} | {step.action.adapter for step in report.failed})
            + bool(report.trouble and not report.unreached and not report.failed)
            for report in reports
        ),
        "unreached": sum(report.unreached for report in reports),
    }


def _is_shown(action: Action) -> bool:
    """What is loaded is verified: that is not said twice."""
    return not isinstance(action, Verify) or not action.fresh


def _held_line(held: Held) -> Text:
    if held.kind in WRONG:
        return Text(f"{held.adapter} {held.text}", style="red")
    return Text(f"keep {held.adapter}: {held.text}", style="yellow")
