"""A command run as a container of compose.yaml runs it: nobody in particular, no capability, a read-only root."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from tests.deploy.compose import ROOT

USER = 10001

# With $SHUT, a folder that only root may enter and that holds this Python, all but that is covered.
_CONFINE = f"""
set -eu
if [ -n "$SHUT" ]; then
    mount --bind "$PYTHON" /mnt
    mount -t tmpfs tmpfs "$SHUT"
    mkdir -p "$PYTHON"
    mount --move /mnt "$PYTHON"
    mount -o remount,ro,bind "$SHUT"
fi
for folder in $WRITABLE; do mount --bind "$folder" "$folder"; done
mount -o remount,ro,bind /
for folder in $WRITABLE; do mount -o remount,rw,bind "$folder"; done
cd /
exec setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@"
"""


@cache
def shut() -> Path | None:
    """The outermost folder round this Python that other users may not enter."""
    python = Path(sys.base_prefix).resolve()
    return next((one for one in reversed(python.parents) if not one.stat().st_mode & stat.S_IXOTH), None)


@cache
def possible() -> bool:
    """Whether this machine lets us have mounts of our own, and other users read the code."""
    if os.geteuid() != 0 or ((folder := shut()) is not None and folder in ROOT.parents):
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def confined(command: Iterable[str | Path], *, writable: Iterable[Path], env: Mapping[str, str]) -> list[str]:
    """The command line that runs ``command`` so, with ``env`` for its environment and nothing of ours."""
    given = {
        **env,
        "PATH": os.environ["PATH"],
        "WRITABLE": " ".join(map(str, writable)),
        "SHUT": str(shut() or ""),
        "PYTHON": str(Path(sys.base_prefix).resolve()),
    }
    pairs = [f"{name}={value}" for name, value in given.items()]
    return ["env", "-i", *pairs, "unshare", "--mount", "--", "sh", "-c", _CONFINE, "confined", *map(str, command)]
