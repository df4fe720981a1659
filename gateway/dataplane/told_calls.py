"""Tool calls that were told, if only in part, and are now made once more: what of them is new. Pure, part by part.

A call was told as soon as its name was, even if nothing of its arguments had come: its client may have begun to act on
it. Engines tell a name whole, so that another one that begins or goes on with it is another tool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dataplane.said import ToolCall
from gateway.errors import OtherAnswer


class ToldCalls:
    """``told``: the calls so far, by index, none of which is to become another one."""

    __slots__ = ("_last", "_now", "_told")

    def __init__(self, told: Mapping[int, ToolCall]) -> None:
        self._told = dict(told)
        self._last = max(told, default=-1)
        self._now: dict[int, ToolCall] = {}

    @property
    def behind(self) -> bool:
        """Whether one of them was not yet made again as far as it was told: its name, and all its arguments."""
        return any(
            (now := self._now.get(index)) is None
            or (call.name and now.name != call.name)
            or len(now.arguments) < len(call.arguments)
            for index, call in self._told.items()
        )

    def leave_news(self, part: dict[str, Any]) -> bool:
        """Leave of a part of a call what is new. Whether that is anything. Raises OtherAnswer where it differs."""
        index = part.get("index", 0)
        before = self._told.get(index)
        if before is None:
            return True
        function = part.get("function") or {}
        now = self._now.setdefault(index, ToolCall())
        left: dict[str, str] = {}
        if name := function.get("name"):
            now.name += name
            if not before.name:
                left["name"] = name
            elif not before.name.startswith(now.name):
                raise OtherAnswer("the second answer calls another tool")
        if arguments := function.get("arguments"):
            if before.name and now.name != before.name:
                raise OtherAnswer("the second answer calls another tool")
            if news := self._new_arguments(index, now, before.arguments, arguments):
                left["arguments"] = news
        if before.id:
            # The first answer told it, and the second one made up another.
            part.pop("id", None)
            part.pop("type", None)
        part["function"] = left
        return bool(left) or "id" in part

    def _new_arguments(self, index: int, now: ToolCall, before: str, piece: str) -> str:
        so_far, now.arguments = now.arguments, now.arguments + piece
        if not (before.startswith(now.arguments) or now.arguments.startswith(before)):
            raise OtherAnswer("the second answer calls the tool in another way")
        news = now.arguments[max(len(so_far), len(before)) :]
        if news and index < self._last:
            raise OtherAnswer("the second answer says more in a call that had ended")
        return news
