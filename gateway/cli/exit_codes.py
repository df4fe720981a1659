"""What the exit status of the ``failsoft`` command means; 0 is done."""

from __future__ import annotations

from typing import Final

FOUND_WRONG: Final = 1
"""A check or a gate found something wrong."""
MISUSE: Final = 2
"""The command line itself was wrong."""
UNREACHABLE: Final = 3
"""Something that the command needs could not be reached."""
