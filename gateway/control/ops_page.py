"""The ops page: one HTML file with its style and script inside, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

_INLINE = re.compile(r"<(?P<tag>style|script)>(?P<text>.*?)</(?P=tag)>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OpsPage:
    """The page and the headers that it is sent with."""

    html: bytes
    headers: dict[str, str]

    @classmethod
    def load(cls) -> OpsPage:
        """Read the page out of this package."""
        html = files("gateway.control").joinpath("ops.html").read_text(encoding="utf-8")
        return cls(html.encode(), headers_for(html))


def headers_for(html: str) -> dict[str, str]:
    """The headers for a page: of scripts and styles only the page's own run, known by their SHA-256 (CSP level 2)."""
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for found in _INLINE.finditer(html):
        digest = base64.b64encode(hashlib.sha256(found["text"].encode()).digest()).decode()
        allowed[found["tag"]].append(f"'sha256-{digest}'")
    rules = [
        "default-src 'none'",
        f"script-src {' '.join(allowed['script'])}",
        f"style-src {' '.join(allowed['style'])}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return {
        "content-security-policy": "; ".join(rules),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
