"""``python -m backend.tiny_model [--out DIR]``: make the tiny model, unless it is there, and print where it lies."""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import torch  # type: ignore[import-not-found]
from transformers.utils.logging import disable_progress_bar  # type: ignore[import-not-found]

from backend.made_once import make
from backend.tiny_model.adapters import save_adapter
from backend.tiny_model.artefacts import ADAPTER_NAMES, TinyModel, default_folder, inputs
from backend.tiny_model.network import build_network
from backend.tiny_model.tokenizer import build_tokenizer


def build(root: Path) -> None:
    """Write the base model, its tokenizer and all adapters below ``root``."""
    torch.set_num_threads(1)  # sums come out the same on every machine
    tokenizer = build_tokenizer()
    model = build_network(tokenizer)
    files = TinyModel(root)
    tokenizer.save_pretrained(files.base)
    model.save_pretrained(files.base)
    for name in ADAPTER_NAMES:
        save_adapter(copy.deepcopy(model), name, files.adapters[name])


def main() -> None:
    """Make what ``--out`` names, by default the folder in the repository's cache."""
    parser = argparse.ArgumentParser(prog="python -m backend.tiny_model", description=__doc__)
    parser.add_argument("--out", type=Path, default=default_folder(), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    disable_progress_bar()
    make(arguments.out, inputs(), build)
    sys.stdout.write(f"{arguments.out}\n")


if __name__ == "__main__":
    main()
