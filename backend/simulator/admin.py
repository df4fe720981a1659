"""The control endpoints of a running simulator, from Python."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx2


class Admin:
    """Talks to ``/simulator/*`` of one simulator; ``url`` is the ``control`` of its ready line.

    Every method raises ``httpx2.HTTPError`` when the simulator is away, and ``httpx2.HTTPStatusError`` with its
    explanation when it refuses a rule. The calls are synchronous: the simulator is another process and answers within
    a millisecond or so.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=url, timeout=10.0, trust_env=False)

    def faults(self, *rules: dict[str, Any]) -> None:
        """From now on these rules, and no others."""
        self._ask("POST", "/simulator/faults", list(rules))

    def fault(self, name: str, /, **rule: Any) -> None:
        """From now on this rule, and no other."""
        self.faults({"fault": name, **rule})

    def heal(self) -> None:
        """No faults from now on."""
        self._ask("DELETE", "/simulator/faults")

    def rules(self) -> list[dict[str, Any]]:
        """The rules in force, each with how often it has ``fired``."""
        return list(self._ask("GET", "/simulator/faults")["rules"])

    def known_faults(self) -> dict[str, Any]:
        """All faults there are, with their parameters."""
        return dict(self._ask("GET", "/simulator/faults")["known"])

    def requests(self, *, after: int = 0, path: str | None = None, model: str | None = None) -> list[dict[str, Any]]:
        """What arrived, oldest first."""
        return [
            request
            for request in self._ask("GET", f"/simulator/requests?after={after}")
            if path in (None, request["path"]) and model in (None, request["model"])
        ]

    def forget(self) -> None:
        """Clear the list of what arrived."""
        self._ask("DELETE", "/simulator/requests")

    def state(self) -> dict[str, Any]:
        """Connections, running requests, listening, frozen, loading."""
        return dict(self._ask("GET", "/simulator/state"))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        response = self._client.request(method, path, json=body)
        if response.status_code >= 400:
            raise httpx2.HTTPStatusError(response.text, request=response.request, response=response)
        return response.json()
