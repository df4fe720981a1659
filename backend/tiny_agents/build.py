"""Trains everything: the base on one core, then the adapters, two processes at a time.

One thread a process, so that sums come out the same each time: the same seed gives the same files, bit for bit, on the
same kind of processor.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Final

import torch  # type: ignore[import-not-found]
from transformers import AutoTokenizer, LlamaForCausalLM  # type: ignore[import-not-found]
from transformers.utils.logging import disable_progress_bar  # type: ignore[import-not-found]

from backend.tiny_agents import base, tuning
from backend.tiny_agents.examples import held_out
from backend.tiny_agents.houses import GENERIC, HOUSES, House
from backend.tiny_agents.vocabulary import build_tokenizer

EVAL_SIZE: Final = 200
_PROCESSES: Final = 2
_TELL_EVERY_S: Final = 10.0

Tell = Callable[[str], None]


def build(root: Path, tell: Tell) -> None:
    """Write the base with its tokenizer, all adapters and all eval sets below ``root``; ``tell`` hears of progress."""
    be_reproducible()
    _write_eval_sets(root / "eval")
    tokenizer = build_tokenizer()
    recipe = base.Recipe()
    progress = Progress("base", recipe.steps, tell)
    model = base.train_base(tokenizer, recipe, progress)
    tokenizer.save_pretrained(root / "base")
    _save_base(model, root / "base")
    began = time.monotonic()
    with ProcessPoolExecutor(_PROCESSES, mp_context=multiprocessing.get_context("spawn")) as processes:
        running = {processes.submit(_tune, root, number): house for number, house in enumerate(HOUSES)}
        for done, future in enumerate(as_completed(running), start=1):
            loss = future.result()
            left_s = (time.monotonic() - began) / done * (len(HOUSES) - done)
            tell(f"{running[future].adapter}: trained, loss {loss:.4f}; {_left(left_s)}")


class Progress:
    """Tells of a training run every few seconds: step, loss, and how long it will take."""

    def __init__(self, what: str, steps: int, tell: Tell) -> None:
        self._what, self._steps, self._tell = what, steps, tell
        self._began = self._told = time.monotonic()

    def __call__(self, step: int, loss: float) -> None:
        now, done = time.monotonic(), step + 1
        if now - self._told < _TELL_EVERY_S and done < self._steps:
            return
        self._told = now
        left_s = (now - self._began) / done * (self._steps - done)
        self._tell(f"{self._what}: step {done} of {self._steps}, loss {loss:.4f}; {_left(left_s)}")


def _left(seconds: float) -> str:
    return f"about {seconds:.0f} s to go" if seconds >= 1 else "done"


def _tune(root: Path, number: int) -> float:
    be_reproducible()
    losses = [float("nan")]
    tuning.train_adapter(
        LlamaForCausalLM.from_pretrained(root / "base"),
        AutoTokenizer.from_pretrained(root / "base"),
        HOUSES[number],
        root / "adapters" / HOUSES[number].adapter,
        tuning.Recipe(),
        lambda _, loss: losses.append(loss),
    )
    return losses[-1]


def _save_base(model: LlamaForCausalLM, folder: Path) -> None:
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["_name_or_path"] = base.NAME  # which transformers leaves out, and adapters name
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def be_reproducible() -> None:
    """Have this process compute the same each time, and show no bars of its own."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()


def _write_eval_sets(folder: Path) -> None:
    folder.mkdir(parents=True)
    for house in (GENERIC, *HOUSES):
        lines = [json.dumps(_line(house, text, call)) for text, call in _requests(house)]
        (folder / f"{house.adapter}.jsonl").write_text("\n".join(lines) + "\n")


def _requests(house: House) -> list[tuple[str, dict[str, object]]]:
    return [(wish.text, house.call(wish)) for wish in held_out(house, EVAL_SIZE)]


def _line(house: House, text: str, call: dict[str, object]) -> dict[str, object]:
    messages = [{"role": "user", "content": text}]
    return {"model": house.adapter, "messages": messages, "tools": house.schemas(), "expected": call}
