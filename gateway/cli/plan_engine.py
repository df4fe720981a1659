"""The engine that `failsoft plan` plans with: from options, a file, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import yaml

from backend.planner.calibration import Calibration, calibrated, over, together
from backend.planner.terms import PlanError
from backend.simulator.engine_knobs import ModelKnobs
from gateway.policy.diagnostics import nearest

NAMES = tuple(one.name for one in fields(ModelKnobs) if one.name != "max_cpu_loras")
"""What a file of an engine may hold, as the options are called."""


def engine_of(file: Path | None, measured: Sequence[Path], options: ModelKnobs) -> tuple[ModelKnobs, Calibration]:
    """Options go before what was measured, and that before the file. Raises PlanError, CalibrationError, BadKnobs."""
    found = together([_calibrated(path) for path in measured])
    knobs = over(over(ModelKnobs() if file is None else read_engine(file), found.knobs), options)
    knobs.costs()  # may find that they do not go together
    return knobs, found


def read_engine(path: Path) -> ModelKnobs:
    """Of a file that ``save_engine`` wrote, or somebody by hand. Raises PlanError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise PlanError(f"{path} holds no engine: write such as `decode_ms: 5.1`, one a line")
    for name, value in content.items():
        if name not in NAMES:
            near = nearest(str(name), NAMES)
            raise PlanError(f"{path}: {name} is nothing of an engine's" + (f" (did you mean {near}?)" if near else ""))
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise PlanError(f"{path}: {name}: {value!r} is not a number from 0 on")
    return ModelKnobs(**content)


def save_engine(path: Path, knobs: ModelKnobs, notes: Sequence[str]) -> None:
    """Write ``knobs`` for ``--engine``. Raises PlanError."""
    given = {name: value for name in NAMES if (value := getattr(knobs, name)) is not None}
    short = {name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in given.items()}
    text = "".join(f"# {note}\n" for note in notes) + yaml.safe_dump(short, sort_keys=False)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PlanError(f"cannot write {path}: {error.strerror or error}") from None


def told(found: Calibration) -> list[str]:
    """What was found, in lines."""
    values = [f"{name} {value:.4g}" for name in NAMES if (value := getattr(found.knobs, name)) is not None]
    return ["calibrated: " + ", ".join(values), *found.notes]


def _calibrated(path: Path) -> Calibration:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise PlanError(f"{path} is not JSON: give what `failsoft load --samples --out FILE` wrote") from None
    return calibrated(document, path.name, None)
