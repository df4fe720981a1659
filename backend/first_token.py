"""Whether a box answers: one token of the base model, asked for as a client would."""

from __future__ import annotations

import httpx2

PROBE_TIMEOUT_S = 30.0


class FirstToken:
    """Asks a box for a token. ``url``: its base address as seen from here. ``api_key``: None where it wants none."""

    def __init__(self, url: str, model: str, api_key: str | None) -> None:
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self.last_answer = "nothing"
        """What the latest attempt came to, for people."""
        self._model = model
        self._client = httpx2.AsyncClient(base_url=url, headers=headers, timeout=PROBE_TIMEOUT_S, trust_env=False)

    async def given(self) -> bool:
        """Whether the base model gives one now. A server that is not up yet is no error."""
        body = {"model": self._model, "prompt": "The agent", "max_tokens": 1}
        try:
            answer = await self._client.get("/health")
            if answer.status_code == 200:
                answer = await self._client.post("/v1/completions", json=body)
        except httpx2.HTTPError as error:
            self.last_answer = type(error).__name__
            return False
        self.last_answer = f"status {answer.status_code} from {answer.url.path}"
        return answer.url.path == "/v1/completions" and answer.status_code == 200

    async def close(self) -> None:
        """Let go of its connections."""
        await self._client.aclose()


def seen_from_here(host: str, port: int) -> str:
    """The URL of a server on this machine that listens on ``host``, which may be every address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - looked for, not listened on
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
