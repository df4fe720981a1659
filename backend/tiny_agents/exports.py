"""``python -m backend.tiny_agents.exports``: other forms of an adapter, right and wrong, for checks that have to tell.

``merged`` is the adapter merged into its base (PEFT's ``merge_and_unload``), to be served as a model of its own. The
wrong ones are mistakes of export that vLLM loads without a word: a scaling or a rank that is not that of training.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from peft import PeftModel  # type: ignore[import-not-found]
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaForCausalLM  # type: ignore[import-not-found]
from transformers.utils.logging import disable_progress_bar  # type: ignore[import-not-found]

from backend.launch import ENGINE_PYTHON
from backend.tiny_agents.artefacts import ADAPTER_NAMES, TinyAgents, ensure
from backend.tiny_agents.base import exactly_right
from backend.tiny_agents.examples import Example, written
from backend.tiny_agents.tuning import RANK

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"

Config = dict[str, Any]
Tensors = dict[str, Any]


def merge(agents: TinyAgents, adapter: str, folder: Path) -> float:
    """Write the standalone model of an adapter, tokenizer and chat template included.

    Returns the share of the adapter's held-out requests that it answers to the last token.
    """
    base = LlamaForCausalLM.from_pretrained(agents.base)
    merged = PeftModel.from_pretrained(base, agents.adapters[adapter]).merge_and_unload()
    merged.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(agents.base)
    tokenizer.save_pretrained(folder)
    lines = agents.held_out(adapter)
    examples = [Example(line["messages"][-1]["content"], written(line["expected"])) for line in lines]
    return exactly_right(merged.eval(), tokenizer, examples)


def export_wrongly(agents: TinyAgents, adapter: str, mistake: str, folder: Path) -> None:
    """Write an adapter as one of ``MISTAKES`` would leave it. Raises KeyError for any other mistake."""
    spoil = MISTAKES[mistake]
    shutil.copytree(agents.adapters[adapter], folder)
    config = json.loads((folder / CONFIG).read_text())
    tensors = load_file(folder / WEIGHTS)
    spoil(config, tensors)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _alpha(value: int) -> Callable[[Config, Tensors], None]:
    return lambda config, _: config.update(lora_alpha=value)


def _rank_in_config(config: Config, _: Tensors) -> None:
    config["r"] = RANK // 2


def _cut(*matrices: str) -> Callable[[Config, Tensors], None]:
    """Keep half of the rank in these tensors: the rows of A, the columns of B."""

    def spoil(_: Config, tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if "lora_A" in name and "A" in matrices:
                tensors[name] = tensor[: RANK // 2].contiguous()
            elif "lora_B" in name and "B" in matrices:
                tensors[name] = tensor[:, : RANK // 2].contiguous()

    return spoil


def _rslora(config: Config, _: Tensors) -> None:
    config["use_rslora"] = True


MISTAKES: Final[dict[str, Callable[[Config, Tensors], None]]] = {
    "alpha-0": _alpha(0),
    "alpha-1": _alpha(1),
    "alpha-halved": _alpha(RANK),
    "alpha-doubled": _alpha(4 * RANK),
    "rank-in-config": _rank_in_config,
    "rank-in-tensors": _cut("A", "B"),
    "rank-in-b": _cut("B"),
    "rslora": _rslora,
}


def main() -> None:
    """Write what is asked for and print each folder."""
    parser = argparse.ArgumentParser(prog="python -m backend.tiny_agents.exports", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="DIR/ADAPTER/FORM is written")
    parser.add_argument("--adapter", action="append", choices=ADAPTER_NAMES, help="repeatable; all, if not given")
    forms = ("merged", *MISTAKES)
    parser.add_argument("--form", action="append", choices=forms, help="repeatable; merged, if not given")
    arguments = parser.parse_args()
    disable_progress_bar()
    agents = ensure(ENGINE_PYTHON)
    for adapter in arguments.adapter or ADAPTER_NAMES:
        for form in arguments.form or ["merged"]:
            folder = arguments.out / adapter / form
            if form == "merged":
                sys.stdout.write(f"{folder}: {merge(agents, adapter, folder):.1%} right\n")
            else:
                export_wrongly(agents, adapter, form, folder)
                sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
