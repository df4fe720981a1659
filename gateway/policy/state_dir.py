"""The state folder of one gateway: its snapshots, and where there is no Redis its store."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from types import TracebackType

from gateway.errors import StateUnusable

MAX_SOCKET_PATH = 100
"""Bytes. ``sun_path`` holds 108 on Linux and 104 on macOS, with a NUL."""


def prepare_state_dir(path: Path) -> Path:
    """Make the folder, for our eyes only. Raises StateUnusable.

    A folder that holds other things than ours keeps its mode, as it may be shared on purpose.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if all(entry.name in OURS for entry in path.iterdir()):
            path.chmod(0o700)
    except OSError as error:
        raise StateUnusable(f"the state folder {path} cannot be used: {error.strerror or error}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StateUnusable(f"the state folder {path} cannot be used: it is not writable")
    return path


VALKEY_DIR = "valkey"
SNAPSHOT = "policies.snapshot"
ORDERS = "orders.snapshot"
LOCK = "gateway.lock"
OURS = frozenset({VALKEY_DIR, SNAPSHOT, ORDERS, LOCK})


def socket_path(folder: Path) -> Path:
    """Where the store of ``folder`` listens: in it, or in a private folder of ours where its path is too long.

    The same each time, so that what a killed gateway left behind is found. Raises StateUnusable.
    """
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"failsoft-{os.getuid()}-{name}"
    try:
        short.mkdir(mode=0o700, exist_ok=True)
        found = short.lstat()
    except OSError as error:
        raise StateUnusable(f"{short} cannot be used: {error.strerror or error}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise StateUnusable(f"{short} is not a private folder of ours; take it away or choose a shorter state folder")
    return short / "valkey.sock"


def forget_socket(path: Path, folder: Path) -> None:
    """Take away what :func:`socket_path` made for ``folder`` outside of it."""
    path.unlink(missing_ok=True)
    if path.parent != folder:
        path.parent.rmdir()


class StateLock:
    """Held while one gateway uses a state folder. The kernel lets go of it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._fd: int | None = None

    def __enter__(self) -> StateLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Raises StateUnusable when another gateway holds it, in this process or another."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateUnusable(f"{self._path} cannot be used: {error.strerror or error}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            message = f"the state folder {self._path.parent} is in use by another gateway (process {holder})"
            raise StateUnusable(f"{message}: give this one another with --state DIR") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Nothing happens when it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
