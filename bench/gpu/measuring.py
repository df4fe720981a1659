"""From settings to kept measurements: files, servers, sections, and the end of all that was started."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.box_process import BoxError
from bench.gpu.artefacts import adapter_folders, base_folder
from bench.gpu.boxes import Box, DidNotStart, running
from bench.gpu.kept import Kept
from bench.gpu.sections import Failed, Say, disk, gateway, load, swap
from bench.gpu.settings import SECTIONS, Kind, Section, Settings
from bench.gpu.single import NoAnswer
from bench.servers import Skipped, start_gateway


@dataclass(frozen=True, slots=True)
class Measuring:
    """One call of the benchmark. ``python``: the interpreter that has vLLM. ``within_s``: the longest start of it."""

    settings: Settings
    folder: Path
    python: str
    within_s: float
    kept: Kept
    say: Say

    def measure(self, wanted: Sequence[Section]) -> bool:
        """Every wanted section, those of the same servers together; whether all could be. Raises OSError."""
        base = base_folder(self.folder, self.settings.model)
        names = list(self.settings.customers.values())
        adapters = adapter_folders(self.folder, self.settings.model, names, self.settings.rank, self.say)
        whole = True
        kinds = list(dict.fromkeys(SECTIONS[section] for section in wanted))
        for kind in kinds:
            here = [section for section in wanted if SECTIONS[section] == kind]
            try:
                whole &= self._on(kind, here, base, adapters)
            except (BoxError, Skipped) as error:
                whole = False
                self.say(f"{', '.join(here)} failed: {error}")
                left = [section for section in wanted if kinds.index(SECTIONS[section]) > kinds.index(kind)]
                if left and isinstance(error, DidNotStart) and error.recurs:
                    self.say(f"{', '.join(left)}: not tried, as their servers would end alike (`--only` tries them)")
                    break
        self.say("measured" if whole else "ended with failures")
        return whole

    def _on(self, kind: Kind, sections: Sequence[Section], base: Path, adapters: Mapping[str, Path]) -> bool:
        """What is measured on servers of one kind. Raises BoxError or Skipped where they do not start."""
        work = self.folder / "runs" / kind
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        whole = True
        with ExitStack() as ending:
            boxes = ending.enter_context(
                running(
                    kind,
                    self.settings,
                    python=self.python,
                    base=base,
                    adapters=adapters,
                    logs=work,
                    within_s=self.within_s,
                    say=self.say,
                )
            )
            front = "" if kind == "small-pool" else self._gateway(kind, boxes, work, ending)
            ways: dict[Section, Callable[[], dict[str, Any]]] = {
                "load": lambda: load(self.settings, boxes, front, work, self.say),
                "base": lambda: load(self.settings, boxes, front, work, self.say),
                "swap": lambda: swap(self.settings, boxes[0], self.say),
                "disk": lambda: disk(self.settings, boxes[0], adapters, self.say),
                "gateway": lambda: gateway(self.settings, boxes, front, self.say),
            }
            for section in sections:
                try:
                    self.kept.put(section, self.settings, ways[section]())
                except (Failed, NoAnswer) as error:
                    whole = False
                    self.say(f"{section} failed: {error}\n{boxes[0].process.error('was asked')}")
        return whole

    def _gateway(self, kind: Kind, boxes: Sequence[Box], work: Path, ending: ExitStack) -> str:
        """Its URL. Before a server without LoRA every name has a slot: nothing is swapped there."""
        slots = self.settings.adapters if kind == "base-alone" else self.settings.max_loras
        urls = [box.url for box in boxes]
        server = start_gateway(
            work, urls, self.settings.customers, slots=slots, pool=max(slots, self.settings.max_cpu_loras)
        )
        ending.callback(server.stop)
        return server.url
