"""``/simulator/*``: set faults, read what arrived. Not part of what is simulated; it answers through every fault.

- ``GET /simulator/faults``: the rules in force and all faults there are; ``POST`` a JSON list of rules to replace
  them; ``DELETE`` to clear them.
- ``GET /simulator/requests``: what arrived, oldest first, with ``?after=ID`` only what is newer; ``DELETE`` forgets.
- ``GET /simulator/state``: connections, running requests, whether it listens, is frozen or still loads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec

from backend.simulator.answer import Answer, Dialect, Fixed
from backend.simulator.faults import BadRule, Rules, known_faults, parse_rules
from backend.simulator.journal import Entry, Journal

PREFIX = "/simulator/"


class Control:
    """Answers requests below ``PREFIX``. ``changed`` is called when the rules have changed."""

    def __init__(
        self,
        dialect: Dialect,
        rules: Rules,
        journal: Journal,
        *,
        state: Callable[[], dict[str, Any]],
        changed: Callable[[], None],
    ) -> None:
        self._dialect = dialect
        self._rules = rules
        self._journal = journal
        self._state = state
        self._changed = changed

    def answer(self, entry: Entry) -> Answer:
        """The answer to one of them."""
        match entry.method, entry.path.removeprefix(PREFIX):
            case "GET", "faults":
                return self._json({"rules": self._rules.shown(), "known": known_faults()})
            case "POST" | "PUT", "faults":
                try:
                    rules = parse_rules(entry.body)
                except BadRule as error:
                    return Fixed(self._dialect, self._dialect.error_body(400, str(error)), status=400)
                self._rules.replace(rules)
                self._changed()
                return self._json({"rules": self._rules.shown()})
            case "DELETE", "faults":
                self._rules.replace(())
                self._changed()
                return self._json({"rules": []})
            case "GET", "requests":
                after = parse_qs(entry.query).get("after", ["0"])[0]
                return self._json(self._journal.shown(after=int(after) if after.isdecimal() else 0))
            case "DELETE", "requests":
                self._journal.clear()
                return self._json([])
            case "GET", "state":
                return self._json(self._state())
        return Fixed(self._dialect, self._dialect.error_body(404, f"no {entry.method} {entry.path} here"), status=404)

    def _json(self, value: Any) -> Answer:
        return Fixed(self._dialect, msgspec.json.encode(value))
