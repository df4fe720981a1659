"""Runs a command that ends when the process that started it ends, even by SIGKILL.

``python tether.py PARENT_PID COMMAND ARGUMENT…`` asks Linux for a signal at the parent's death, which outlives
``exec``, and becomes the command. A program of its own rather than a ``preexec_fn``, which can deadlock where threads
run. On other systems the command simply runs; whoever starts the next one ends it (see ``embedded.py``).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From ``<sys/prctl.h>``; see prctl(2)."""


def main(parent: int, command: list[str]) -> None:
    """Become ``command``. Returns only by an exception."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
