"""Who had something done: by the admin token that was used, and by what the client says of its user."""

from __future__ import annotations

from typing import NamedTuple


class Actor(NamedTuple):
    """``by``: the admin token's name, which was proven. ``user``: whoever the client says it is, which was not.

    Both are empty where nothing is known.
    """

    by: str = ""
    user: str = ""

    @property
    def line(self) -> str:
        """``ops-token (ann)``"""
        return f"{self.by} ({self.user})" if self.by and self.user else self.by or self.user


UNKNOWN = Actor()

USER_HEADER = "x-failsoft-user"
"""In which clients of the admin API say it, as percent-encoded UTF-8. It proves nothing."""
