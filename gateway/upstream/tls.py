"""TLS towards upstreams: verification is always on, and nothing here can turn it off."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path


@functools.cache
def verified_context(extra_ca_file: Path | None = None) -> ssl.SSLContext:
    """The client context of every ``https`` origin: certificate and host name are checked, TLS 1.2 at least.

    ``extra_ca_file``: a PEM file of certificate authorities to trust beside the system's own, for private ones.
    Made once for each such file, since loading the system's authorities takes some 20 ms.

    :raises OSError: the file cannot be read, or holds no certificate (``ssl.SSLError``).
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if extra_ca_file is not None:
        context.load_verify_locations(cafile=str(extra_ca_file))
    return context


def require_verified(context: ssl.SSLContext) -> ssl.SSLContext:
    """Hand ``context`` back if it verifies its peer.

    :raises ValueError: it does not.
    """
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ValueError("this TLS context does not verify certificate and host name")
    return context
