"""What was measured so far, in the folder, so that sections can be measured by calls of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.gpu.settings import SECTIONS, Section, Settings


class Kept:
    """Sections' figures beside the settings that they depend on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._content: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            self._content = {}

    def get(self, section: Section, settings: Settings) -> dict[str, Any] | None:
        """The figures of ``section``, if they were measured with these settings."""
        entry = self._content.get(section)
        return entry["figures"] if entry is not None and entry["settings"] == settings.of(section) else None

    def put(self, section: Section, settings: Settings, figures: dict[str, Any]) -> None:
        """Keep them, in place of what was there, in one step."""
        self._content[section] = {"settings": settings.of(section), "figures": figures}
        scratch = self._path.with_suffix(".new")
        scratch.write_text(json.dumps(self._content, indent=1) + "\n")
        scratch.replace(self._path)

    def all(self, settings: Settings) -> dict[str, dict[str, Any]]:
        """Every section that was measured with these settings."""
        found = {section: self.get(section, settings) for section in SECTIONS}
        return {section: figures for section, figures in found.items() if figures is not None}
