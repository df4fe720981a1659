"""Who runs the command."""

from __future__ import annotations

import getpass


def local_user() -> str:
    """The user's name on this machine; empty where it has none for this user id, as in some containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
