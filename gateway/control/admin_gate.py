"""Who may use the admin API, for what, and who did: before every route of it, so that none can be left open."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl, quote

from starlette.datastructures import Headers

from gateway.clock import today_utc, wall_s
from gateway.control.admin_actor import read_actor
from gateway.control.envelope import envelope
from gateway.observe.actor import Actor
from gateway.policy.audit_stream import LONGEST_VALUE, AuditEntry
from gateway.policy.compiled import FROM_ENVIRONMENT, AdminToken, CompiledPolicy

READS = frozenset({"GET", "HEAD", "OPTIONS"})

PREFIX = "/admin"

Recorder = Callable[[AuditEntry], None]

_OFF = (
    "The admin API is off: start the gateway with FAILSOFT_ADMIN_TOKEN set in its environment, "
    "or write admin_tokens into fleet.yaml."
)
_NO_TOKEN = "The admin token is missing or wrong: send it as `Authorization: Bearer TOKEN`."  # noqa: S105  # a sentence
_READ_ONLY = "This admin token may only read: what changes something needs one with `scope: write`."


class AdminAccess:
    """Which tokens there are now: the gateway's own, which may do everything, and those of the policy in force."""

    def __init__(self, own: str | None, policy: Callable[[], CompiledPolicy | None]) -> None:
        self._own = hashlib.sha256(own.encode()).digest() if own else None
        self._policy = policy

    def find(self, authorization: str) -> AdminToken | None:
        """Whose ``Authorization`` header this is. Takes as long whether or not it is anybody's."""
        scheme, _, text = authorization.partition(" ")
        token = text.strip().encode("latin-1", "replace")
        own = hmac.compare_digest(hashlib.sha256(token).digest(), self._own or b"")
        policy = self._policy()
        other = None if policy is None else policy.admin(token, today_utc())
        if scheme.lower() != "bearer" or not token:
            return None
        return AdminToken(FROM_ENVIRONMENT, b"", "write") if own else other

    @property
    def off(self) -> bool:
        """Whether there is no token at all."""
        policy = self._policy()
        return not self._own and (policy is None or not policy.admin_tokens)


class AdminGate:
    """ASGI middleware. ``changed`` and ``refused`` hear what was done and what was not allowed.

    Reads are not told: dashboards ask each second, and who may read sees nothing secret.
    """

    def __init__(self, app: Any, *, access: AdminAccess, changed: Recorder, refused: Recorder) -> None:
        self._app = app
        self._access = access
        self._changed = changed
        self._refused = refused

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer, or have it answered."""
        if scope["type"] != "http" or not (scope["path"] == PREFIX or scope["path"].startswith(PREFIX + "/")):
            await self._app(scope, receive, send)
            return
        authorization = Headers(scope=scope).get("authorization", "")
        token = self._access.find(authorization)
        needs: Literal["read", "write"] = "read" if scope["method"] in READS else "write"
        act = _Act(scope, read_actor(scope, "" if token is None else token.name))
        if (refusal := self._refusal(token, needs)) is not None:
            self._refused(act.entry(refusal.status_code))
            await refusal(scope, receive, send)
        elif needs == "read":
            await self._read(scope, receive, send, authorization)
        else:
            await self._change(scope, receive, send, act)

    def _refusal(self, token: AdminToken | None, needs: Literal["read", "write"]) -> Any:
        if self._access.off:
            return envelope(403, _OFF)
        if token is None:
            return envelope(401, _NO_TOKEN, headers={"www-authenticate": "Bearer"})
        if needs == "write" and token.scope != "write":
            return envelope(403, _READ_ONLY, code="read_only_token")
        return None

    async def _read(self, scope: dict[str, Any], receive: Any, send: Any, authorization: str) -> None:
        over = False

        async def send_while_valid(event: dict[str, Any]) -> None:
            # A long poll may have waited while its token was revoked.
            nonlocal over
            if event["type"] == "http.response.start" and self._access.find(authorization) is None:
                over = True
                await envelope(401, _NO_TOKEN, headers={"www-authenticate": "Bearer"})(scope, receive, send)
            if not over:
                await send(event)

        await self._app(scope, receive, send_while_valid)

    async def _change(self, scope: dict[str, Any], receive: Any, send: Any, act: _Act) -> None:
        status = 500

        async def receive_and_keep() -> Any:
            event = await receive()
            act.received(event)
            return event

        async def send_and_see(event: dict[str, Any]) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
            await send(event)

        try:
            await self._app(scope, receive_and_keep, send_and_see)
        finally:
            self._changed(act.entry(status))


class _Act:
    """What is asked, and by whom, as the audit log has it."""

    def __init__(self, scope: Mapping[str, Any], actor: Actor) -> None:
        self._scope = scope
        self._actor = actor
        self._at = wall_s()
        self._body = b""

    def received(self, event: Mapping[str, Any]) -> None:
        """A part of the body."""
        if event["type"] == "http.request" and len(self._body) < LONGEST_VALUE:
            self._body += event.get("body", b"")

    def entry(self, status: int) -> AuditEntry:
        """It, with its outcome."""
        client = self._scope.get("client")
        return AuditEntry(
            at=self._at,
            who=self._actor.by,
            user=self._actor.user,
            # Quoted again, as what was decoded may hold line breaks.
            what=f"{self._scope['method']} {quote(self._scope['path'])}",
            outcome=str(status),
            where=client[0] if client else "",
            parameters=self._parameters(),
        )

    def _parameters(self) -> str:
        found: dict[str, Any] = dict(parse_qsl(self._scope.get("query_string", b"").decode("latin-1")))
        if self._body:
            try:
                body = json.loads(self._body)
            except ValueError:
                body = self._body.decode("utf-8", "replace")
            found |= body if isinstance(body, dict) else {"body": body}
        return json.dumps(found, ensure_ascii=False)[:LONGEST_VALUE] if found else ""
