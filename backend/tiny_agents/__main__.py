"""``python -m backend.tiny_agents [--out DIR]``: train the tiny agents, unless they are there, and print where."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from backend.made_once import is_whole, make
from backend.tiny_agents.artefacts import default_folder, inputs


def main() -> None:
    """Make what ``--out`` names, by default the folder in the repository's cache. Progress goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m backend.tiny_agents", description=__doc__)
    parser.add_argument("--out", type=Path, default=default_folder(), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    if not is_whole(arguments.out, inputs()):
        _tell("training the tiny agents: a base and its adapters, some minutes on two cores, once")
        from backend.tiny_agents.build import build  # takes seconds to import

        began = time.monotonic()
        make(arguments.out, inputs(), lambda root: build(root, _tell))
        _tell(f"trained in {time.monotonic() - began:.0f} s")
    sys.stdout.write(f"{arguments.out}\n")


def _tell(line: str) -> None:
    sys.stderr.write(f"tiny agents: {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
