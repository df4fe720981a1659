"""A running gateway's admin API, as the commands ask it: an answer, or one line and the exit code that fits."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any
from urllib.parse import quote

import httpx2
import typer

from gateway.cli.exit_codes import FOUND_WRONG, UNREACHABLE
from gateway.cli.local_user import local_user
from gateway.observe.actor import USER_HEADER

TIMEOUT_S = 5.0

Url = Annotated[str, typer.Option(envvar="FAILSOFT_URL", help="The gateway, or its admin listener where it has one.")]
DEFAULT_URL = "http://127.0.0.1:8080"


class AdminClient:
    """Asks the gateway at ``url``. The admin token is read from FAILSOFT_ADMIN_TOKEN.

    From the environment only: what stands on a command line, every user of the machine can read.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._token = os.environ.get("FAILSOFT_ADMIN_TOKEN", "")

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The document at ``path``. Raises :class:`typer.Exit`: 1 where what was asked about is not known, else 3."""
        return self._ask("GET", path, query)

    def post(self, path: str, body: dict[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The same, for what changes something. ``body`` is sent as JSON."""
        return self._ask("POST", path, {}, body, timeout_s)

    def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: dict[str, Any] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        target = f"{self._url}{path}"
        headers = {"authorization": f"Bearer {self._token}", USER_HEADER: quote(local_user())}
        try:
            answer = httpx2.request(method, target, params=query, json=body, headers=headers, timeout=timeout_s)
            document = answer.json()
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeEncodeError) as error:
            raise failure(f"{target} cannot be reached ({error}). Set FAILSOFT_URL or --url.", UNREACHABLE) from None
        except ValueError:
            raise _no_gateway(target) from None
        if not isinstance(document, dict):
            raise _no_gateway(target)
        if answer.status_code == 200:
            return document
        said = document.get("error")
        if not isinstance(said, dict):
            raise _no_gateway(target)
        message = said.get("message", f"status {answer.status_code}")
        if said.get("code"):
            # The gateway understood and says what is wrong; a path that it does not serve has no code.
            raise failure(str(message), FOUND_WRONG)
        hint = " Set FAILSOFT_ADMIN_TOKEN." if answer.status_code == 401 else ""
        raise failure(f"{target}: {message}{hint}", UNREACHABLE)


def failure(message: str, code: int) -> typer.Exit:
    """Say what went wrong, for the caller to raise."""
    sys.stderr.write(f"failsoft: {message}\n")
    return typer.Exit(code)


def _no_gateway(target: str) -> typer.Exit:
    return failure(f"{target} does not answer as a failsoft gateway does.", UNREACHABLE)
